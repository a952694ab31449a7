"""Nodes that die in a simulation, each when it asks for a given effect: how a run goes on without them is tested so."""

from collections.abc import Mapping, Sequence


class Deaths:
    """Who dies when.

    Args:
        due: by node, the number of the effect, counted from 0 over all rounds, that it asks for and dies.
        neighbors: of each node that dies, those that are told.
    """

    def __init__(self, due: Mapping[int, int], neighbors: Mapping[int, Sequence[int]]) -> None:
        if untold := sorted(due.keys() - neighbors.keys()):
            raise ValueError(f"node {untold[0]} dies, and its neighbors are not given: who would be told of it?")
        self._due, self._neighbors = dict(due), neighbors
        self._asked = dict.fromkeys(due, 0)
        self.dead: set[int] = set()

    def strike(self, node: int) -> bool:
        """Whether a node dies of the effect that it asks for now."""
        if node not in self._due:
            return False
        self._asked[node] += 1
        if self._asked[node] <= self._due[node]:
            return False
        self.dead.add(node)
        return True

    def told(self, node: int) -> list[int]:
        """The living neighbors of a node that died."""
        return [neighbor for neighbor in self._neighbors[node] if neighbor not in self.dead]
