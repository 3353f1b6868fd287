"""Files that a reader never meets half of: atomic writes, encoding, checkpoints, locks."""
