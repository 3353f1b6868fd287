"""Pure functions on tensors: masks, scores, allocation, schedules, statistics, and the state they make."""
