"""From graphs and the words of an experiment's topology section to a topology: weights, scaling, schedule."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from decentral import config
from decentral.errors import ConfigError
from decentral.seeding import turn_stream
from decentral.topology.graph import checked_graph, checked_turn
from decentral.topology.matchings import matchings
from decentral.topology.mixing import MixingMatrix, mixing_matrix
from decentral.topology.scaling import scaled
from decentral.topology.schedule import DrawnSchedule, TopologySchedule, cyclic, weakest
from decentral.topology.topology import Topology, refuse_swapping

MOST_ROWS = 20_000_000
"""Of all matrices of a schedule that holds them."""

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
        _check_schedule(section, graph, family)
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
    links = linked(turns)
    directed = any(turn.is_directed() for turn in turns)
    checked_graph(nx.compose_all([turn.to_directed() for turn in turns]) if directed else links, nodes, family.source)
    return Topology(section.name, links, cyclic(tuple(weigh(turn) for turn in turns)))


def linked(graphs: Iterable[nx.Graph]) -> nx.Graph:
    """The links of all turns: an undirected graph with no attributes but the nodes' `pos`."""
    union = nx.Graph()
    for graph in graphs:
        union.add_nodes_from(graph.nodes(data=True))
        union.add_edges_from(graph.edges)
    return nx.freeze(union)


def _check_schedule(section: config.Topology, graph: nx.Graph, family: Family) -> None:
    """Raise ConfigError where the schedule does not go with the graph, or with weights that are asked for."""
    name = section.schedule.name
    if name != "static" and graph.is_directed():
        raise ConfigError(f"schedule: {name} pairs nodes and needs an undirected graph, found a directed one")
    if name == "random-matchings" and section.weights == "uniform":
        raise ConfigError(f"schedule: {name} may leave nodes alone, and weights: uniform needs equal degrees")
    if name != "matcha":
        return
    scaling = None if section.scaling == "none" else section.scaling
    for key, value in {"weights": section.weights, "scaling": scaling}.items():
        if value is not None:
            raise ConfigError(f"schedule: matcha has a weight of its own, found {key}: {value}; leave {key} out")
    if family.weights != "metropolis":
        raise ConfigError(
            f"schedule: matcha has a weight of its own, and {family.source} means weights: {family.weights}; use "
            "schedule: random-matchings"
        )


def _weigh(weights: str, scaling: str | float) -> Weigh:
    return lambda graph: scaled(mixing_matrix(graph, weights), scaling)


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

    Raises:
        ConfigError: so many turns on so many nodes that their matrices would fill the memory.
    """
    busiest = max(degree for _, degree in graph.degree)
    if busiest * len(graph) > MOST_ROWS:
        raise ConfigError(
            f"schedule: matchings takes {busiest:,} turns or more, one for each neighbor of the busiest node, of "
            f"{len(graph):,} nodes each; at most {MOST_ROWS:,} rows are kept: use schedule: random-matchings"
        )
    return cyclic(tuple(weigh(_turn(graph, edges)) for edges in matchings(graph) or [()]))


def _random_matchings(graph: nx.Graph, weigh: Weigh, section: config.Topology) -> TopologySchedule:
    """A maximal matching in each turn: edges in random order, each taken whose ends are free yet."""
    assert isinstance(section.schedule, config.RandomMatchings)
    seed, edges = section.schedule.seed, [edge for edge in graph.edges if edge[0] != edge[1]]

    def draw(turn: int) -> MixingMatrix:
        taken, free = [], set(graph)
        for at in turn_stream(seed, turn, "random-matchings").permutation(len(edges)).tolist():
            if free.issuperset(edges[at]):
                free.difference_update(edges[at])
                taken.append(edges[at])
        return weigh(_turn(graph, taken))

    return DrawnSchedule(draw, draw(0).kind)


def _matcha(graph: nx.Graph, weigh: Weigh, section: config.Topology) -> TopologySchedule:
    from decentral.topology.matcha import matcha  # scipy.optimize takes a rank half a second to import

    assert isinstance(section.schedule, config.Matcha)
    parts = matchings(graph)
    if not parts:
        return cyclic((weigh(graph),))
    return DrawnSchedule(matcha(parts, len(graph), section.schedule.budget, section.schedule.seed).drawn, "symmetric")


def _turn(graph: nx.Graph, edges: Iterable[tuple[int, int]]) -> nx.Graph:
    """All nodes, and some of the edges with their weights."""
    turn = nx.empty_graph(len(graph))
    turn.add_edges_from((i, j, graph.edges[i, j]) for i, j in edges)
    return turn


SCHEDULES: dict[str, Callable[[nx.Graph, Weigh, config.Topology], TopologySchedule]] = {
    "static": _static,
    "matchings": _matchings,
    "random-matchings": _random_matchings,
    "matcha": _matcha,
}
"""How the turns come of a graph, by the name of the section's schedule."""
