"""Packages for components of one's own: templates, and what fills them in."""
