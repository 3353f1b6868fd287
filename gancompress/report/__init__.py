"""One self-contained page per run, and the table that ends it, both from the run directory's files alone."""
