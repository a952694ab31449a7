"""A topology: who may talk to whom, and with which weights in which turn."""

from dataclasses import dataclass

import networkx as nx

from decentral.errors import ConfigError, nearest
from decentral.topology.matchings import matchings
from decentral.topology.mixing import Row, mixing_matrix
from decentral.topology.schedule import CyclicSchedule, StaticSchedule, TopologySchedule

SCHEDULES = ("static", "matchings")
"""All edges in every turn, or one matching of the graph in each."""


@dataclass(frozen=True, eq=False)
class Topology:
    """A graph on the nodes 0..n-1 and a schedule of mixing matrices on its edges.

    Args:
        name: what the experiment calls it.
        graph: a checked graph; the union over all turns.
        schedule: the mixing matrix of each turn, each zero wherever the graph has no edge.
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
        return cls(name, graph, StaticSchedule(mixing_matrix(graph, weights)))

    @classmethod
    def one_partner(cls, name: str, graph: nx.Graph, weights: str) -> "Topology":
        """A checked graph one matching at a time: in each turn a node mixes with one neighbor at most.

        With `metropolis` weights both take the mean of the two. The turns go through the graph's matchings.

        Raises:
            ConfigError: unknown weights, or weights that a matching does not allow.
        """
        turns = [graph.edge_subgraph(edges).copy() for edges in matchings(graph)] or [graph]
        for turn in turns:
            turn.add_nodes_from(graph)
        return cls(name, graph, CyclicSchedule(tuple(mixing_matrix(turn, weights) for turn in turns)))

    @classmethod
    def scheduled(cls, name: str, graph: nx.Graph, weights: str, schedule: str) -> "Topology":
        """A checked graph with one of `mixing.WEIGHTS`, by one of `SCHEDULES`.

        Raises:
            ConfigError: unknown weights or schedule, or weights that this graph does not allow.
        """
        if schedule not in SCHEDULES:
            raise ConfigError(f"unknown schedule {schedule!r}{nearest(schedule, SCHEDULES)}")
        return cls.static(name, graph, weights) if schedule == "static" else cls.one_partner(name, graph, weights)

    @property
    def nodes(self) -> int:
        return len(self.graph)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The edges as (i, j) with i < j, ascending, without self-loops."""
        return tuple(sorted((min(i, j), max(i, j)) for i, j in self.graph.edges if i != j))

    def row(self, node: int, turn: int = 0) -> Row:
        """The row of `node` in the mixing matrix of a turn."""
        return self.schedule.matrix(turn).row(node)

    def neighbors(self, node: int) -> tuple[int, ...]:
        """Whoever `node` talks to in some turn: ascending, without itself."""
        return tuple(sorted(j for j in self.graph[node] if j != node))
