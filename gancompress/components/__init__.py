"""Named components: where they come from, and whether they are what their kind asks for."""
