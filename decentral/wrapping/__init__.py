"""The user's own training loop as a driver: the algorithm waits for its gradient while the user's code computes it."""
