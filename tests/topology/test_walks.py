"""Walks: where they may go, that kernels are what the papers say, and that one text serves simulators and nodes."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.topology import hops
from decentral.topology.chains import Chain, Target, chain
from decentral.topology.walk_analysis import kernel, transition
from decentral.topology.walks import KERNELS, Walk, first_node, uniform

KARATE = nx.karate_club_graph()
REPELLED = ("srrw", "hdt")


def walk_of(name: str, alpha: float = 3.0) -> Walk:
    return Walk(name, alpha if name in REPELLED else 0.0)


def target_for(name: str, nodes: int, seed: int) -> list[float] | None:
    if not KERNELS[name].any_target:
        return None
    return np.random.default_rng(seed).uniform(0.1, 3, nodes).tolist()


@st.composite
def graphs(draw: st.DrawFn) -> nx.Graph:
    """Connected: a random tree with some more edges, of weights 0.1 to 9."""
    nodes, seed = draw(st.integers(2, 12)), draw(st.integers(0, 10_000))
    random = np.random.default_rng(seed)
    graph = nx.Graph([(i, int(random.integers(i))) for i in range(1, nodes)])
    graph.add_edges_from(random.integers(nodes, size=(draw(st.integers(0, 15)), 2)).tolist())
    nx.set_edge_attributes(graph, {edge: float(random.uniform(0.1, 9)) for edge in graph.edges}, "weight")
    return graph


def walked_by_a_node(chained: Chain, seed: int, token: int, visits: int) -> list[int]:
    """The path of a token that each node sends on by what it knows; counts that are not asked for are NaN."""
    counts, previous = chained.initial_counts(), None
    path = [first_node(seed, token, chained.n)]
    for visit in range(1, visits):
        node = path[-1]
        counts[node] += 1
        around, u = chained.surroundings(node), uniform(seed, token, visit)
        seen = np.full(len(around.whose), np.nan)
        asked = around.asked(u)
        seen[asked] = counts[around.whose[asked]]
        path.append(around.next_node(u, seen, previous))
        previous = node
    return path


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=25, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 1000), alpha=st.floats(0, 30))
def test_a_walk_keeps_to_edges_and_nodes_alone_make_the_same_path(
    name: str, graph: nx.Graph, seed: int, alpha: float
) -> None:
    chained = chain(graph, walk_of(name, alpha), target_for(name, len(graph), seed))
    path = chained.path(seed, 1, 60).tolist()
    for i, j in pairwise(path):
        assert graph.has_edge(i, j) or (i == j and name in (*REPELLED, "metropolis", "weighted"))
    assert walked_by_a_node(chained, seed, 1, 60) == path


@pytest.mark.parametrize("name", REPELLED)
@settings(max_examples=25, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 1000))
def test_alpha_0_is_the_base_chain_bitwise(name: str, graph: nx.Graph, seed: int) -> None:
    target = target_for(name, len(graph), seed)
    path = chain(graph, Walk(name, 0.0), target).path(seed, 0, 400)
    assert (path == chain(graph, Walk("metropolis"), target).path(seed, 0, 400)).all()


def test_a_walk_to_the_degrees_is_the_simple_walk() -> None:
    simple = chain(KARATE, Walk("simple")).path(5, 0, 3000)
    assert (chain(KARATE, Walk("srrw", 0.0), "degree").path(5, 0, 3000) == simple).all()
    assert (chain(KARATE, Walk("srrw", 2.0), "degree").path(5, 0, 3000) != simple).any()


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "non-backtracking"])
@settings(max_examples=40, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 1000), alpha=st.sampled_from([0.5, 1.0, 5.0]))
def test_hops_are_drawn_from_the_kernel(name: str, graph: nx.Graph, seed: int, alpha: float) -> None:
    """u on a fine grid in place of chance: the share of it that leads to j is K_ij[x], up to the grid's cells."""
    chained = chain(graph, walk_of(name, alpha), target_for(name, len(graph), seed))
    counts = np.random.default_rng([seed, 1]).uniform(0.2, 5, len(graph))
    K, grid = kernel(chained, counts), 500
    around = chained.surroundings(seed % len(graph))
    found = [around.next_node((cell + 0.5) / grid, counts[around.whose]) for cell in range(grid)]
    shares = np.bincount(found, minlength=len(graph)) / grid
    assert np.abs(shares - K[around.node]).max() <= (2 * len(around.whose)) / grid


@pytest.mark.parametrize("name", REPELLED)
@settings(max_examples=25, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 1000), alpha=st.floats(0, 20), scale=st.floats(1e-9, 1e9))
def test_kernel_identities(name: str, graph: nx.Graph, seed: int, alpha: float, scale: float) -> None:
    chained = chain(graph, Walk(name, alpha), target_for(name, len(graph), seed))
    counts = np.random.default_rng([seed, 1]).uniform(0.2, 5, len(graph))
    K, P = kernel(chained, counts), transition(chained).toarray()
    assert (K >= -1e-15).all()
    np.testing.assert_allclose(K.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(kernel(chained, scale * counts), K, atol=1e-9)
    np.testing.assert_allclose(kernel(chained, chained.target), P, atol=1e-12)
    np.testing.assert_allclose(kernel(chained, chained.initial_counts()), P, atol=1e-12)
    off_graph = P == 0
    if name == "hdt":  # it may refuse to move where P always does
        np.fill_diagonal(off_graph, False)
    assert (K[off_graph] == 0).all()


def test_the_kernel_of_the_paper_with_its_stationary_law() -> None:
    """K_ij[x] ~ P_ij (x_j / mu_j)^-alpha; pi_i[x] ~ sum_j mu_i P_ij (x_i / mu_i)^-alpha (x_j / mu_j)^-alpha."""
    target = np.random.default_rng(1).uniform(1, 4, 34)
    target /= target.sum()
    x = np.random.default_rng(2).dirichlet(np.ones(34)) + 0.01
    chained = chain(KARATE, Walk("srrw", 1.7), target.tolist())
    P, tilt = transition(chained).toarray(), (x / target) ** -1.7
    K = kernel(chained, x)
    np.testing.assert_allclose(K, P * tilt / (P @ tilt)[:, None], rtol=1e-11, atol=1e-15)
    law = target * tilt * (P @ tilt)
    np.testing.assert_allclose(law @ K / law.sum(), law / law.sum(), atol=1e-14)


def test_hdt_is_reversible_for_its_history_driven_target() -> None:
    x = np.random.default_rng(2).dirichlet(np.ones(34)) + 0.01
    chained = chain(KARATE, Walk("hdt", 1.7), "degree")
    flow = (chained.target * (x / chained.target) ** -1.7)[:, None] * kernel(chained, x)
    np.testing.assert_allclose(flow, flow.T, atol=1e-15)


@settings(max_examples=25, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 1000))
def test_the_markov_kernels_keep_their_target(graph: nx.Graph, seed: int) -> None:
    for name in ("simple", "weighted", "metropolis"):
        chained = chain(graph, Walk(name), target_for(name, len(graph), seed))
        flow = chained.target[:, None] * transition(chained).toarray()
        np.testing.assert_allclose(flow, flow.T, atol=1e-14)
        np.testing.assert_allclose(flow.sum(axis=0), chained.target, atol=1e-14)


def test_metropolis_for_the_uniform_target() -> None:
    P = transition(chain(KARATE, Walk("metropolis"))).toarray()
    for i, j in KARATE.edges:
        assert P[i, j] == pytest.approx(min(1 / KARATE.degree(i), 1 / KARATE.degree(j)))
    assert P[0, 0] == pytest.approx(1 - P[0, 1:].sum())


def test_weighted_hops_go_by_the_edges_weights() -> None:
    graph = nx.Graph()
    graph.add_weighted_edges_from([(0, 1, 1.0), (0, 2, 3.0), (1, 2, 2.0)])
    chained = chain(graph, Walk("weighted"))
    np.testing.assert_allclose(transition(chained).toarray()[0], [0, 0.25, 0.75])
    np.testing.assert_allclose(chained.target, [4 / 12, 3 / 12, 5 / 12])
    np.testing.assert_allclose(chain(graph, Walk("simple")).target, 1 / 3)


def test_non_backtracking_turns_back_at_dead_ends_alone() -> None:
    path = chain(KARATE, Walk("non-backtracking")).path(0, 0, 4000).tolist()
    turns = {b for a, b, c in zip(path, path[1:], path[2:], strict=False) if a == c}
    assert turns == {node for node in KARATE if KARATE.degree(node) == 1}
    ring = chain(nx.cycle_graph(5), Walk("non-backtracking")).path(3, 0, 50)
    assert len(set(np.diff(ring) % 5)) == 1


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("graph", [nx.path_graph(2), nx.star_graph(4), nx.cycle_graph(6), nx.path_graph(3)])
def test_small_graphs_are_walked_all_over(name: str, graph: nx.Graph) -> None:
    chained = chain(graph, walk_of(name))
    path = chained.path(0, 0, 200)
    assert set(path.tolist()) == set(graph)
    assert walked_by_a_node(chained, 0, 0, 200) == path.tolist()


@pytest.mark.parametrize("name", KERNELS)
def test_a_single_node_keeps_its_token(name: str) -> None:
    assert chain(nx.empty_graph(1), walk_of(name)).path(0, 0, 5).tolist() == [0] * 5


@pytest.mark.parametrize("name", REPELLED)
def test_no_alpha_and_no_count_overflows(name: str) -> None:
    """(1e300)^-100 is far below the least number, and (1e-300)^-100 far above the largest."""
    chained = chain(nx.star_graph(3), Walk(name, 100.0), "degree")
    counts = np.array([1e300, 1e300, 1e-300, 1e290])
    K = kernel(chained, counts)
    np.testing.assert_allclose(K.sum(axis=1), 1)
    around = chained.surroundings(0)
    found = {around.next_node(u, counts[around.whose]) for u in np.linspace(0.001, 0.999, 50)}
    assert found == ({2} if name == "srrw" else {2, 3, 0})  # leaf 1 has more than its share, and hdt stays instead
    assert chained.surroundings(2).next_node(0.5, np.array([1e-300, 1e300])) == 0
    hub = chain(KARATE, Walk(name, 100.0)).path(0, 0, 20_000)
    assert np.bincount(hub, minlength=34).min() > 0


def test_a_leaf_beside_a_hub_that_is_much_visited_may_only_go_back() -> None:
    """The own weight of a simple walk is 0, however low the own count: nothing may be 0 times infinity."""
    around = chain(nx.star_graph(3), Walk("srrw", 50.0), "degree").surroundings(1)
    assert around.next_node(0.3, np.array([1e200, 1e-200])) == 0


def test_the_numbers_of_a_path_are_those_of_splitmix64() -> None:
    """The published outputs for the seed 1234567, at any place of the stream."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    for visit in (3, 1, 0, 2):
        assert hops.uniform(np.uint64(1234567), visit) == (published[visit] >> 11) * 2.0**-53


def test_each_seed_token_and_visit_has_a_number_of_its_own() -> None:
    drawn = [uniform(seed, token, visit) for seed in range(4) for token in range(5) for visit in range(50)]
    assert len(set(drawn)) == len(drawn)
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.03)
    paths = {tuple(chain(KARATE, Walk("simple")).path(0, token, 20).tolist()) for token in range(10)}
    assert len(paths) == 10


def test_a_path_begins_as_its_longer_self() -> None:
    chained = chain(KARATE, Walk("srrw", 5.0))
    assert (chained.path(1, 2, 500)[:300] == chained.path(1, 2, 300)).all()


def test_missing_counts_are_refused() -> None:
    around = chain(KARATE, Walk("srrw", 5.0)).surroundings(0)
    with pytest.raises(ValueError, match="kernel srrw needs a count above 0 of node 1: none"):
        around.next_node(0.5)
    with pytest.raises(ValueError, match=r"of node 5: 0\.0"):
        around.next_node(0.5, np.where(around.whose == 5, 0.0, 1.0))


def test_what_a_hop_asks() -> None:
    around = chain(KARATE, Walk("hdt", 5.0)).surroundings(0)
    assert {len(around.asked(u)) for u in np.linspace(0, 0.99, 30)} == {2}
    assert all(around.whose[around.asked(u)[-1]] == 0 for u in (0.0, 0.5, 0.99))
    assert chain(KARATE, Walk("srrw", 5.0)).surroundings(0).asked(0.3) == list(range(17))
    assert chain(KARATE, Walk("non-backtracking")).surroundings(0).asked(0.3) == []


@pytest.mark.parametrize(
    ("kernel", "alpha", "fake", "line"),
    [
        ("srww", 1.0, 1.0, "unknown kernel 'srww'; did you mean 'srrw'?"),
        ("srrw", -1.0, 1.0, "alpha is -1; required: a finite number, 0 or more"),
        ("hdt", float("nan"), 1.0, "alpha is nan"),
        ("srrw", float("inf"), 1.0, "alpha is inf"),
        ("simple", 2.0, 1.0, "kernel simple has no memory of visits, found alpha 2"),
        ("srrw", 2.0, 0.0, "fake_visits is 0; required: a finite number above 0"),
    ],
)
def test_bad_walks_are_refused(kernel: str, alpha: float, fake: float, line: str) -> None:
    with pytest.raises(ConfigError, match=line.replace("?", r"\?")):
        Walk(kernel, alpha, fake)


RING = nx.cycle_graph(4)


@pytest.mark.parametrize(
    ("graph", "kernel", "target", "line"),
    [
        (nx.cycle_graph(4, create_using=nx.DiGraph), "simple", None, "needs an undirected graph, found a directed one"),
        (nx.Graph([(0, 1), (2, 3)]), "srrw", None, "needs a connected graph, found one of 2 components"),
        (nx.Graph([(1, 2)]), "srrw", None, "nodes 0..n-1"),
        (RING, "srrw", [1.0, 1.0, 0.0, 1.0], "the target of node 2 is 0; required: a finite number above 0"),
        (RING, "metropolis", [1.0, float("nan"), 1.0, 1.0], "the target of node 1 is nan"),
        (RING, "srrw", [1.0, 1.0], "the target has 2 numbers for 4 nodes; required: one a node"),
        (RING, "srrw", "even", "unknown target 'even'"),
        (nx.star_graph(3), "simple", "uniform", "kernel simple visits nodes in proportion to their degrees"),
        (nx.star_graph(3), "non-backtracking", [1e-12, 1e-12, 1e-12, 2e-12], "kernel non-backtracking visits"),
        (nx.Graph([(0, 1, {"weight": 0.0})]), "weighted", None, "edge 0-1 has weight 0"),
    ],
)
def test_what_cannot_be_walked_is_refused(graph: nx.Graph, kernel: str, target: Target, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        chain(graph, Walk(kernel), target)
