"""Who talks to whom: a graph, the mixing weights on it, and when each applies."""
