"""The composition root: a recipe becomes objects, rounds of training, evaluations, costs and files."""
