"""n_W against published values, against slow and independent ways to it, and against what it must be by definition."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.topology.effective_neighbors import effective_neighbors
from decentral.topology.topology import Topology

from .topologies import (
    lopsided,
    matrices,
    named,
    of,
    one_peer_exponential,
    one_way_ring,
    random_matchings,
    two_cliques,
)

GAMMAS = (0.5, 0.9, 0.95, 0.99, 0.999)

GOLDEN = {  # 32 nodes, mean over the nodes, at GAMMAS
    "ring": (3.72, 6.63, 8.78, 17.08, 28.90),
    "star": (1.16, 1.67, 2.29, 6.44, 22.06),
    "hypercube": (8.90, 19.64, 24.17, 30.01, 31.79),
    "one-peer exponential": (2.99, 9.29, 14.15, 25.43, 31.19),
    "one-way ring": (2.41, 4.16, 5.47, 10.96, 24.82),
    "complete": (32, 32, 32, 32, 32),
}
BUILT = {"one-peer exponential": one_peer_exponential, "one-way ring": one_way_ring}


def built(name: str, nodes: int = 32) -> Topology:
    return BUILT[name](nodes) if name in BUILT else named(name, nodes)


def by_kronecker(turns: list[np.ndarray], gamma: float) -> np.ndarray:
    """(T, n): the walk's variance after each turn, from the n^2 x n^2 linear system of its covariance."""
    n, count = len(turns[0]), len(turns)
    A, b = np.eye(count * n * n), np.zeros(count * n * n)
    for t, W in enumerate(turns):
        here, before = (slice(k * n * n, (k + 1) * n * n) for k in (t, (t - 1) % count))
        A[here, before] -= gamma * np.kron(W, W)
        b[here] = (W @ W.T).ravel()
    return np.linalg.solve(A, b).reshape(count, n, n).diagonal(axis1=1, axis2=2)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_table_of_32_nodes(name: str) -> None:
    neighbors = effective_neighbors(built(name))
    for gamma, expected in zip(GAMMAS, GOLDEN[name], strict=True):
        found = neighbors.at(gamma)
        assert found is not None
        assert found.mean == pytest.approx(expected, rel=0.01, abs=0.01)
        if name == "complete":
            assert found.mean == pytest.approx(32, rel=1e-9)


def test_a_node_alone_has_itself() -> None:
    found = effective_neighbors(named("ring", 1)).at(0.9)
    assert found is not None
    assert found == pytest.approx((1, 1))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize(
    "topology",
    [
        named("star", 7),
        named("tree", 9),
        one_way_ring(6),
        one_peer_exponential(6),
        named("ring", 7, schedule="matchings"),
        named("star", 5, schedule="matchings"),
    ],
    ids=["star", "tree", "one-way ring", "one-peer exponential", "ring matchings", "star matchings"],
)
def test_it_is_the_kronecker_solution(topology: Topology, gamma: float) -> None:
    variance = by_kronecker(matrices(topology), gamma).mean(axis=0)
    found = effective_neighbors(topology).at(gamma)
    assert found is not None
    assert found.mean == pytest.approx(1 / (1 - gamma) / variance.mean(), rel=1e-8)
    assert found.worst == pytest.approx(1 / (1 - gamma) / variance.max(), rel=1e-8)


def test_a_periodic_schedule_is_its_lifted_static_walk() -> None:
    """A cycle of one matrix twice is the static graph, solved in another way."""
    ring = nx.cycle_graph(9)
    for gamma in GAMMAS:
        lifted, static = effective_neighbors(of([ring, ring])).at(gamma), effective_neighbors(of([ring])).at(gamma)
        assert lifted is not None
        assert lifted == pytest.approx(static, rel=1e-9)


def test_a_drawn_schedule_is_the_mean_over_its_sampled_turns() -> None:
    """By Kronecker on the same sample; all pairs being alike, the nodes are too, but for the sample."""
    topology, gamma = random_matchings(6), 0.9
    turns = [topology.schedule.matrix(turn).dense() for turn in range(256)]
    M = np.mean([np.kron(W, W) for W in turns], axis=0)
    b = np.mean([(W @ W.T).ravel() for W in turns], axis=0)
    variance = np.linalg.solve(np.eye(36) - gamma * M, b).reshape(6, 6).diagonal()
    found = effective_neighbors(topology).at(gamma)
    assert found is not None
    assert found.mean == pytest.approx(1 / (1 - gamma) / variance.mean(), rel=1e-8)
    assert found.worst == pytest.approx(1 / (1 - gamma) / variance.max(), rel=1e-8)


@pytest.mark.parametrize("topology", [named("star", 8), one_way_ring(8)], ids=["star", "one-way ring"])
def test_a_simulated_walk_has_this_variance(topology: Topology) -> None:
    gamma, walks, turns, generator = 0.8, 20_000, 60, np.random.default_rng(1)
    y = np.zeros((topology.nodes, walks))
    for turn in range(turns):
        W = topology.schedule.matrix(turn).dense()
        y = W @ (gamma**0.5 * y + generator.standard_normal(y.shape))
    squares = (y**2).mean(axis=0)
    found = effective_neighbors(topology).at(gamma)
    assert found is not None
    expected = 1 / (1 - gamma) / found.mean
    assert abs(squares.mean() - expected) < 3 * squares.std() / walks**0.5


def test_simulated_walks_on_their_own_draws_have_the_variance_of_a_drawn_schedule() -> None:
    topology, gamma, generator = random_matchings(8), 0.8, np.random.default_rng(1)
    turns = np.array([topology.schedule.matrix(turn).dense() for turn in range(256)])
    y = np.zeros((10_000, 8, 1))
    for _ in range(60):
        y = turns[generator.integers(256, size=len(y))] @ (gamma**0.5 * y + generator.standard_normal(y.shape))
    squares = (y**2).mean(axis=(1, 2))
    found = effective_neighbors(topology).at(gamma)
    assert found is not None
    assert abs(squares.mean() - 1 / (1 - gamma) / found.mean) < 3 * squares.std() / len(y) ** 0.5


@given(st.integers(2, 14), st.integers(0, 10**6), st.floats(0, 0.99), st.floats(0.001, 0.009))
@settings(max_examples=40, deadline=None)
def test_bounds_growth_and_limits(nodes: int, seed: int, gamma: float, further: float) -> None:
    tree = nx.random_labeled_tree(nodes, seed=seed)
    graph = nx.compose(tree, nx.gnp_random_graph(nodes, 0.3, seed=seed))
    neighbors, W = effective_neighbors(of([graph])), of([graph]).schedule.matrix(0).dense()
    here, there, first, last = (neighbors.at(g) for g in (gamma, gamma + further, 0.0, 1 - 1e-9))
    assert here is not None and there is not None and first is not None and last is not None  # noqa: PT018  for mypy
    assert here.worst is not None
    assert 1 - 1e-9 <= here.worst <= here.mean <= nodes + 1e-9
    assert here.mean <= there.mean + 1e-9
    assert first.mean == pytest.approx(nodes / np.linalg.norm(W) ** 2)
    assert last.mean == pytest.approx(nodes, rel=1e-4)


def test_two_cliques_have_the_smallest_gap_and_many_neighbors() -> None:
    found = effective_neighbors(two_cliques(16)).at(0.5)
    assert found is not None
    assert found.mean == pytest.approx(16.2, rel=0.01)


@pytest.mark.parametrize("name", ["ring", "star", "hypercube", "tree"])
def test_lanczos_quadrature_agrees_with_all_eigenvalues(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean within three standard errors of the random vectors, 2 % each; single nodes to 1e-3."""
    topology = named(name, 512 if name == "hypercube" else 400)
    exact = effective_neighbors(topology)
    monkeypatch.setattr("decentral.topology.effective_neighbors.EXACT_NODES", 10)
    estimated = effective_neighbors(topology)
    assert "Lanczos" in estimated.method
    for gamma in GAMMAS:
        found, known = estimated.at(gamma), exact.at(gamma)
        assert found is not None
        assert known is not None
        assert found.mean == pytest.approx(known.mean, rel=0.06)
        assert known.worst is not None
        assert found.worst == pytest.approx(min(found.mean, known.worst), rel=1e-3)


@pytest.mark.parametrize("name", ["star", "tree", "small_world"])
def test_without_eigenvectors_the_mean_is_exact_and_the_worst_node_is_nearly_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = named(name, 300)
    exact = effective_neighbors(topology)
    monkeypatch.setattr("decentral.topology.quadrature.EXACT_NODES", 10)
    found = effective_neighbors(topology)
    assert "worst node: of the 8" in found.method
    for gamma in GAMMAS:
        here, known = found.at(gamma), exact.at(gamma)
        assert here is not None
        assert known is not None
        assert here.mean == pytest.approx(known.mean, rel=1e-6)
        assert here.worst == pytest.approx(known.worst, rel=0.03)


@pytest.mark.parametrize(
    "topology",
    [one_peer_exponential(32), one_way_ring(32), named("torus", 36, schedule="matchings"), random_matchings(32)],
    ids=["one-peer exponential", "one-way ring", "torus matchings", "random matchings"],
)
def test_carried_vectors_agree_with_the_covariance(topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    covariance = effective_neighbors(topology)
    monkeypatch.setattr("decentral.topology.effective_neighbors.LIFTED_NODES", 10)
    carried = effective_neighbors(topology)
    assert "random vectors" in carried.method
    for gamma in GAMMAS:
        found, known = carried.at(gamma), covariance.at(gamma)
        assert found is not None
        assert known is not None
        assert found.worst is None
        assert found.mean == pytest.approx(known.mean, rel=0.04)


def test_where_gossip_is_too_slow_to_follow_n_w_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decentral.topology.effective_neighbors.LIFTED_NODES", 10)
    monkeypatch.setattr("decentral.topology.probes.MOST_TURNS", 60)
    topology = one_way_ring(300)
    found = effective_neighbors(topology)
    assert found.at(0.99999) is None
    known = found.at(0.5)
    assert known is not None
    assert known.mean == pytest.approx(2.41, rel=0.03)


@pytest.mark.parametrize("gamma", [-0.1, 1.0, float("nan")])
def test_gamma_is_a_share(gamma: float) -> None:
    with pytest.raises(ConfigError, match=r"required: 0 or more and below 1"):
        effective_neighbors(named("ring", 4)).at(gamma)


def test_column_stochastic_matrices_have_none() -> None:
    with pytest.raises(ConfigError, match="defined for doubly stochastic"):
        effective_neighbors(lopsided(6))
