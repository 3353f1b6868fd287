"""Pure functions on tensors: masks, scores, allocation, schedules, patterns, and the state they make."""
