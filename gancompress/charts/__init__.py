"""Charts of a page, as SVG: no library, no script, the same bytes for the same numbers."""
