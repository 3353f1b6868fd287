"""The method contract, and one file per method."""
