"""Generators and discriminators, in matched pairs."""
