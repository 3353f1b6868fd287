"""Tasks: what a generator eats, which networks play, which step is taken, and what evaluation feeds."""
