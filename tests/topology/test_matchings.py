"""Edge colorings: every edge once, no two of a matching at one node, and no more of them than Vizing's theorem says."""

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.topology.matchings import matchings


def check(graph: nx.Graph, at_most: int) -> None:
    found = matchings(graph)
    edges = [edge for matching in found for edge in matching]
    assert sorted(edges) == sorted((min(edge), max(edge)) for edge in graph.edges if edge[0] != edge[1])
    for matching in found:
        ends = [node for edge in matching for node in edge]
        assert len(ends) == len(set(ends)), matching
    assert len(found) <= at_most


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 14), st.floats(0, 1), st.integers(0, 10_000))
def test_a_graph_takes_as_many_colors_as_its_largest_degree_or_one_more(nodes: int, density: float, seed: int) -> None:
    graph = nx.gnp_random_graph(nodes, density, seed=seed)
    largest = max((degree for _, degree in graph.degree), default=0)
    check(graph, largest if nx.is_bipartite(graph) else largest + 1)


@pytest.mark.parametrize(
    ("graph", "colors"),
    [
        (nx.cycle_graph(4), 2),
        (nx.cycle_graph(5), 3),
        (nx.cycle_graph(100), 2),
        (nx.star_graph(6), 6),
        (nx.complete_graph(8), 8),
        (nx.petersen_graph(), 4),
        (nx.davis_southern_women_graph(), 14),
        (nx.hypercube_graph(4), 4),
        (nx.complete_bipartite_graph(5, 7), 7),
        (nx.random_regular_graph(6, 200, seed=1), 7),
    ],
    ids=[
        "even ring",
        "odd ring",
        "long ring",
        "star",
        "complete",
        "petersen",
        "davis",
        "hypercube",
        "bipartite",
        "random regular",
    ],
)
def test_known_graphs(graph: nx.Graph, colors: int) -> None:
    check(nx.convert_node_labels_to_integers(graph), colors)


def test_self_loops_are_no_edges() -> None:
    graph = nx.path_graph(2)
    graph.add_edge(0, 0)
    assert matchings(graph) == [((0, 1),)]
    assert matchings(nx.empty_graph(3)) == []
