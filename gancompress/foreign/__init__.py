"""Generators that gancompress did not make: read from files and modules of others into graphs."""
