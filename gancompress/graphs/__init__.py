"""What a network computes, as data: operations, their arguments and the names of tensors. No class, no pickle."""
