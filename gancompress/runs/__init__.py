"""A run is a directory: where everything lies, what it says, and how it is read again."""
