"""Charts as SVG, for pages and for files: no library, no script, the same bytes for the same numbers."""
