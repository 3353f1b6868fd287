"""Methods compared fairly: a grid of ordinary runs over one recipe, and what they came to."""
