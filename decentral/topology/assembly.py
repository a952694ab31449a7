"""From graphs and the words of an experiment's topology section to a topology: weights, scaling, schedule."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from decentral import config
from decentral.errors import ConfigError
from decentral.topology.graph import checked_graph, checked_turn
from decentral.topology.matchings import matchings
from decentral.topology.mixing import MixingMatrix, mixing_matrix
from decentral.topology.schedule import DrawnSchedule, TopologySchedule, cyclic, weakest
from decentral.topology.topology import Topology, refuse_swapping

JUDGED_TURNS = 32
"""So many turns of a schedule of the user's own decide what all of its matrices must be."""

Weigh = Callable[[nx.Graph], MixingMatrix]
"""The mixing matrix of one turn's graph, as the section wants it."""


@dataclass(frozen=True)
class Family:
    """What a file of the gallery gives for a number of nodes, as yet unchecked.

    Args:
        graphs: one graph, or one for each turn of a cycle; where `turn` is given, the one that holds all links.
        source: the file's name, for errors.
        turn: a turn's graph or edges, by the turn's number; None where `graphs` say it all.
        weights: the weights that the file means, unless the experiment asks for others.
    """

    graphs: Sequence[object]
    source: str
    turn: Callable[[int], object] | None = None
    weights: str = "metropolis"


def topology_of(family: Family, section: config.Topology, nodes: int) -> Topology:
    """The topology of a section from the graphs that its name stands for.

    Raises:
        ConfigError: the graphs are not sound, or do not allow what the section asks for.
    """
    weigh = _weigh(section.weights or family.weights, section.scaling)
    if family.turn is None and len(family.graphs) == 1:
        graph = checked_graph(family.graphs[0], nodes, family.source)
        topology = Topology(section.name, linked([graph]), SCHEDULES[section.schedule.name](graph, weigh, section))
        refuse_swapping(topology.schedule, topology.graph)
        return topology
    if section.schedule.name != "static":
        raise ConfigError(
            f"{family.source} has a schedule of its own, found schedule: {section.schedule.name}; leave it out"
        )
    if family.turn is not None:
        return _with_own_schedule(family, family.turn, section, nodes, weigh)
    turns = [checked_turn(graph, nodes, family.source) for graph in family.graphs]
    graph = checked_graph(linked(turns), nodes, family.source)
    return Topology(section.name, graph, cyclic(tuple(weigh(turn) for turn in turns)))


def linked(graphs: Iterable[nx.Graph]) -> nx.Graph:
    """The links of all turns: an undirected graph with no attributes but the nodes' `pos`."""
    union = nx.Graph()
    for graph in graphs:
        union.add_nodes_from(graph.nodes(data=True))
        union.add_edges_from(graph.edges)
    return nx.freeze(union)


def _weigh(weights: str, scaling: str | float) -> Weigh:
    if scaling != "none":
        raise ConfigError(f"scaling: {scaling} is not there yet")
    return lambda graph: mixing_matrix(graph, weights)


def _with_own_schedule(
    family: Family, turn: Callable[[int], object], section: config.Topology, nodes: int, weigh: Weigh
) -> Topology:
    links = linked([checked_graph(family.graphs[0], nodes, family.source)])

    def draw(number: int) -> MixingMatrix:
        source = f"turn {number} of {family.source}"
        graph = checked_turn(turn(number), nodes, source)
        for i, j in graph.edges:
            if i != j and not links.has_edge(i, j):
                raise ConfigError(f"{source} has the edge {i}-{j}, which build(nodes) has not; it must hold all edges")
        return weigh(graph)

    kind = weakest(*(draw(number).kind for number in range(JUDGED_TURNS)))
    return Topology(section.name, links, DrawnSchedule(draw, kind))


def _static(graph: nx.Graph, weigh: Weigh, section: Any) -> TopologySchedule:  # noqa: ARG001  as the others
    return cyclic((weigh(graph),))


def _matchings(graph: nx.Graph, weigh: Weigh, section: Any) -> TopologySchedule:  # noqa: ARG001  as the others
    """One matching of the graph in each turn: a node mixes with one neighbor at most, over all matchings in turn.

    With `metropolis` weights both take the mean of the two.
    """
    if graph.is_directed():
        raise ConfigError("schedule: matchings pairs nodes and needs an undirected graph, found a directed one")
    turns = [graph.edge_subgraph(edges).copy() for edges in matchings(graph)] or [nx.create_empty_copy(graph)]
    for turn in turns:
        turn.add_nodes_from(graph)
    return cyclic(tuple(weigh(turn) for turn in turns))


SCHEDULES: dict[str, Callable[[nx.Graph, Weigh, config.Topology], TopologySchedule]] = {
    "static": _static,
    "matchings": _matchings,
}
"""How the turns come of a graph, by the name of the section's schedule."""
