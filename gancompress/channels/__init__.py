"""Whole channels: which of them must go together, what they are worth, and networks without some of them."""
