"""Topologies that the tests of the analysis share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import networkx as nx
import numpy as np

from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.assembly import Family, topology_of
from decentral.topology.topology import Topology


def named(name: str, nodes: int, **options: object) -> Topology:
    return gallery.load(example_with(topology={"name": name, **options}).topology, nodes, Path())


def of(
    graphs: Sequence[nx.Graph], weights: str = "metropolis", turn: Callable[[int], object] | None = None
) -> Topology:
    """The topology of one graph, of a cycle of them, or of a turn's edges drawn by its number."""
    section = example_with(topology={"name": "x", "weights": weights}).topology
    return topology_of(Family(graphs, "x.py", turn), section, len(graphs[0]))


def shift(nodes: int, by: int) -> nx.DiGraph:
    """Node i receives from i + by."""
    graph = nx.empty_graph(nodes, create_using=nx.DiGraph)
    graph.add_edges_from(((i + by) % nodes, i) for i in range(nodes))
    return graph


def one_peer_exponential(nodes: int) -> Topology:
    return of([shift(nodes, 2**k) for k in range((nodes - 1).bit_length())], "uniform")


def one_way_ring(nodes: int) -> Topology:
    return of([shift(nodes, 1)], "uniform")


def two_cliques(size: int) -> Topology:
    graph = nx.disjoint_union(nx.complete_graph(size), nx.complete_graph(size))
    graph.add_edge(0, size)
    return of([graph])


def random_matchings(nodes: int) -> Topology:
    """Pairs drawn anew in every turn."""

    def turn(number: int) -> list[tuple[int, int]]:
        order = list(range(nodes))
        Random(number).shuffle(order)
        return list(zip(order[::2], order[1::2], strict=False))

    return of([nx.complete_graph(nodes)], turn=turn)


def random_shifts(nodes: int) -> Topology:
    """In every turn all nodes receive from the one that is a drawn number of places ahead."""
    links = nx.complete_graph(nodes, create_using=nx.DiGraph)
    return of([links], "uniform", lambda number: shift(nodes, Random(number).randrange(1, nodes)))


def lopsided(nodes: int) -> Topology:
    """A directed ring with one chord, column-stochastic and no more."""
    graph = shift(nodes, 1)
    graph.add_edge(0, nodes // 2)
    return of([graph], "column-stochastic")


def matrices(topology: Topology) -> list[np.ndarray]:
    """The dense matrices of a period."""
    assert topology.schedule.period is not None
    return [topology.schedule.matrix(turn).dense() for turn in range(topology.schedule.period)]
