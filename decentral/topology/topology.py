"""A topology: who may talk to whom, and with which weights in which turn."""

from dataclasses import dataclass

import networkx as nx

from decentral.errors import ConfigError
from decentral.topology.mixing import Row, mixing_matrix
from decentral.topology.schedule import StaticSchedule, TopologySchedule


@dataclass(frozen=True, eq=False)
class Topology:
    """The nodes 0..n-1, who is linked to whom, and a schedule of mixing matrices on the links.

    Args:
        name: what the experiment calls it.
        graph: the links, undirected: whoever talks to each other in some turn, in one direction or both.
        schedule: the mixing matrix of each turn, each zero wherever there is no link.
    """

    name: str
    graph: nx.Graph
    schedule: TopologySchedule

    @classmethod
    def static(cls, name: str, graph: nx.Graph, weights: str) -> "Topology":
        """A checked graph with one of `mixing.WEIGHTS`, the same in every turn.

        Raises:
            ConfigError: unknown weights, or weights that this graph does not allow.
        """
        return cls(name, graph.to_undirected(), StaticSchedule(mixing_matrix(graph, weights)))

    @property
    def nodes(self) -> int:
        return len(self.graph)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The links as (i, j) with i < j, ascending, without self-loops."""
        return tuple(sorted((min(i, j), max(i, j)) for i, j in self.graph.edges if i != j))

    def row(self, node: int, turn: int = 0) -> Row:
        """The row of `node` in the mixing matrix of a turn."""
        return self.schedule.matrix(turn).row(node)

    def neighbors(self, node: int) -> tuple[int, ...]:
        """Whoever `node` talks to in some turn: ascending, without itself."""
        return tuple(sorted(j for j in self.graph[node] if j != node))


def refuse_swapping(schedule: TopologySchedule, graph: nx.Graph) -> None:
    """Raise ConfigError where two sides of a static graph swap models for ever: the eigenvalue -1.

    Args:
        schedule: on the graph.
        graph: the links.
    """
    if schedule.period != 1 or len(graph) == 1 or schedule.matrix(0).sparse.diagonal().any():
        return
    if nx.is_bipartite(graph):
        raise ConfigError(
            "no node keeps any weight for itself and the graph is bipartite, so its two sides swap models for ever "
            "(eigenvalue -1); give the edges less weight"
        )
