"""The front door: what every command does, as functions with typed results."""
