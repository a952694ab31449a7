"""Schedules of the gallery: what the papers promise of each, by the matrices that the files lead to."""

from functools import reduce
from math import ceil, log
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.stochastic import Floats
from decentral.topology.topology import Topology


def load(name: str, nodes: int, **options: Any) -> Topology:
    return gallery.load(example_with(topology={"name": name, **options}).topology, nodes, Path())


def turns(topology: Topology, drawn: int = 12) -> list[Floats]:
    return [topology.schedule.matrix(turn).dense() for turn in range(topology.schedule.period or drawn)]


def off_mean(topology: Topology) -> Floats:
    """The product of a period, less J."""
    n = topology.nodes
    return reduce(lambda before, W: W @ before, turns(topology), np.eye(n)) - 1 / n


FAMILIES: dict[str, list[tuple[dict[str, Any], str]]] = {
    "base_k": [({"k": k}, "symmetric") for k in (1, 2, 3)],
    "one_peer_exponential": [({}, "doubly-stochastic")],
    "directed_exponential": [({}, "doubly-stochastic")],
    "k_peer_exponential": [({"k": k}, "doubly-stochastic") for k in (1, 2)],
    "equi_static": [({}, "symmetric"), ({"directed": True}, "doubly-stochastic")],
    "equi_dyn": [({}, "symmetric"), ({"directed": True}, "doubly-stochastic"), ({"eta": 1.0}, "symmetric")],
    "epidemic": [({}, "symmetric"), ({"recipients": 2, "seed": 5}, "symmetric")],
    "hierarchical": [({}, "symmetric"), ({"outer": "star", "links": 1, "inner": 2}, "symmetric")],
}
CASES = [(name, options, kind) for name, cases in FAMILIES.items() for options, kind in cases]


@pytest.mark.parametrize(("name", "options", "kind"), CASES, ids=[f"{name}-{options}" for name, options, _ in CASES])
@settings(max_examples=15, deadline=None)
@given(nodes=st.integers(3, 40))
@example(nodes=31)
def test_every_matrix_is_what_it_claims(name: str, options: dict[str, Any], kind: str, nodes: int) -> None:
    topology = load(name, nodes, **options)
    for W in turns(topology):
        assert W.min() >= 0
        assert np.abs(W.sum(axis=0) - 1).max() <= 1e-12
        assert np.abs(W.sum(axis=1) - 1).max() <= 1e-12
        if kind == "symmetric":
            assert np.abs(W - W.T).max() <= 1e-12
    assert topology.schedule.kind in (kind, "symmetric")
    assert nodes != 31 or topology.schedule.kind == kind
    for turn in range(3):
        for i, j in zip(*np.nonzero(topology.schedule.matrix(turn).dense()), strict=True):
            assert i == j or j in topology.neighbors(int(i))


def neighbors(W: Floats) -> int:
    return int(((W - np.diag(W.diagonal())) > 0).sum(axis=1).max(initial=0))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_base_graph_comes_to_the_exact_mean(k: int) -> None:
    """Takezawa et al. 2023: for any number of nodes, in 2 log n / log(k + 1) + 2 turns, each of degree k or less."""
    for nodes in range(1, 100):
        topology = load("base_k", nodes, k=k)
        assert np.abs(off_mean(topology)).max() <= 1e-12, nodes
        assert max(map(neighbors, turns(topology))) <= k, nodes
        assert topology.schedule.period <= 2 * log(nodes) / log(k + 1) + 2, nodes


@pytest.mark.parametrize(
    ("nodes", "k", "period"), [(15, 2, 4), (17, 2, 5), (30, 2, 5), (5, 1, 5), (6, 1, 4), (16, 1, 4), (27, 2, 3)]
)
def test_a_base_graph_is_as_short_as_published(nodes: int, k: int, period: int) -> None:
    assert load("base_k", nodes, k=k).schedule.period == period


@pytest.mark.parametrize("nodes", [2, 4, 8, 16, 64])
def test_one_peer_exponential_is_exact_at_powers_of_two(nodes: int) -> None:
    topology = load("one_peer_exponential", nodes)
    assert topology.schedule.period == log(nodes, 2)
    assert np.abs(off_mean(topology)).max() <= 1e-15
    assert {neighbors(W) for W in turns(topology)} == {1}


def test_one_peer_exponential_is_not_exact_elsewhere() -> None:
    assert np.linalg.norm(off_mean(load("one_peer_exponential", 6))) == pytest.approx(0.354, abs=5e-4)
    assert load("one_peer_exponential", 6).row(0, turn=2).to == (4,)
    assert load("one_peer_exponential", 6).row(0, turn=2).weights == {0: 0.5, 2: 0.5}


@pytest.mark.parametrize(
    ("nodes", "k", "deviation"),
    [(15, 2, 0.508), (17, 2, 0.602), (30, 2, 0.109), (6, 1, 0.433), (12, 1, 0.418), (27, 2, 0), (25, 4, 0)],
)
def test_k_peer_exponential_is_off_by_what_is_published(nodes: int, k: int, deviation: float) -> None:
    topology = load("k_peer_exponential", nodes, k=k)
    assert np.linalg.norm(off_mean(topology), 2) == pytest.approx(deviation, abs=5.5e-4)
    reach = (k + 1) ** topology.schedule.period
    angles = np.pi * np.arange(1, nodes) / nodes
    formula = np.abs(np.sin(angles * reach) / (reach * np.sin(angles))).max()
    assert np.linalg.norm(off_mean(topology), 2) == pytest.approx(formula, abs=1e-12)
    assert {neighbors(W) for W in turns(topology)} == {k}


def test_the_directed_exponential_graph_sends_to_powers_of_two() -> None:
    row = load("directed_exponential", 12).row(0)
    assert row.to == (1, 2, 4, 8)
    assert row.sources == (4, 8, 10, 11)
    assert row.weights == dict.fromkeys((0, 4, 8, 10, 11), 0.2)


def basis(nodes: int, offset: int) -> Floats:
    """A(u) of the paper: node i gives weight (n - 1) / n to i + u and 1 / n to itself."""
    return np.eye(nodes) / nodes + (nodes - 1) / nodes * np.roll(np.eye(nodes), offset, axis=1)


@pytest.mark.parametrize("nodes", [2, 6, 7, 16])
def test_equi_static_is_the_mean_of_its_offsets(nodes: int) -> None:
    (directed,), (undirected,) = (turns(load("equi_static", nodes, directed=d, seed=3)) for d in (True, False))
    count = ceil(log(nodes, 2))
    shares = directed[0, 1:] * nodes / (nodes - 1) * count
    np.testing.assert_allclose(shares, shares.round(), rtol=0, atol=1e-12)
    expected = sum(int(share) * basis(nodes, u) for u, share in enumerate(shares.round(), start=1)) / count
    np.testing.assert_allclose(directed, expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(undirected, (expected + expected.T) / 2, rtol=0, atol=1e-15)
    assert neighbors(directed) <= count


def test_the_gap_of_equi_static_does_not_shrink_with_the_nodes() -> None:
    """Song et al. 2022, theorem 1: with M = 8 ln(2 n / p) / (3 e^2) the norm is below e with chance 1 - p."""
    for nodes in (16, 64, 256):
        count = ceil(8 * log(2 * nodes / 0.1) / (3 * 0.7**2))
        norms = [
            np.linalg.norm(turns(load("equi_static", nodes, directed=True, offsets=count, seed=seed))[0] - 1 / nodes, 2)
            for seed in range(5)
        ]
        assert max(norms) < 0.7


def test_directed_equi_dyn_halves_the_mean_square_at_every_size() -> None:
    """Over all offsets, the mean of ||W x||^2 / ||x||^2 of every x with mean zero: .469 at 16 nodes, .492 at 64."""
    for nodes, factor in ((16, 0.469), (64, 0.492)):
        topology, seen, turn = load("equi_dyn", nodes, directed=True), {}, 0
        while len(seen) < nodes - 1:
            row = topology.row(0, turn)
            (seen_offset,) = row.sources
            seen[seen_offset] = topology.schedule.matrix(turn)
            turn += 1
        matrices = [matrix.dense() - 1 / nodes for matrix in seen.values()]
        mean = sum(W.T @ W for W in matrices) / len(matrices)
        off = np.eye(nodes) - 1 / nodes
        assert np.trace(mean) / (nodes - 1) == pytest.approx(factor, abs=5e-4)
        np.testing.assert_allclose(mean, np.trace(mean) / (nodes - 1) * off, rtol=0, atol=1e-12)


def test_directed_equi_dyn_at_256_nodes() -> None:
    """The same from eigenvalues, all on one circle: 1 - eta + eta A(u)."""
    (W,) = (load("equi_dyn", 256, directed=True).schedule.matrix(turn).dense() for turn in (0,))
    (offset,) = np.flatnonzero(W[0, 1:]) + 1
    np.testing.assert_allclose(W, 0.5 * np.eye(256) + 0.5 * basis(256, int(offset)), rtol=0, atol=1e-15)
    waves = np.exp(2j * np.pi * np.outer(np.arange(1, 256), np.arange(1, 256)) / 256)  # offset, frequency
    factors = (np.abs(W[0, 0] + W[0, offset] * waves) ** 2).mean(axis=0)
    np.testing.assert_allclose(factors, 0.498, rtol=0, atol=5e-4)


@pytest.mark.parametrize("nodes", [2, 5, 16])
def test_undirected_equi_dyn_pairs_nodes_at_one_offset(nodes: int) -> None:
    topology = load("equi_dyn", nodes, eta=0.53)
    for turn in range(30):
        W = topology.schedule.matrix(turn).dense()
        pairs = [(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(W, 1)), strict=True)]
        assert pairs
        assert len({min((j - i) % nodes, (i - j) % nodes) for i, j in pairs}) == 1
        assert len({node for pair in pairs for node in pair}) == 2 * len(pairs)
        for i, j in pairs:
            assert W[i, j] == pytest.approx(0.53 * (nodes - 1) / nodes)
            assert W[i, i] == pytest.approx(1 - 0.53 + 0.53 / nodes)


def test_equi_dyn_depends_on_seed_and_turn_alone() -> None:
    def drawn(order: list[int], **options: Any) -> list[bytes]:
        schedule = load("equi_dyn", 12, **options).schedule
        found = {turn: schedule.matrix(turn).dense().tobytes() for turn in order}
        return [found[turn] for turn in sorted(order)]

    assert drawn([0, 1, 2, 999]) == drawn([999, 2, 1, 0])
    assert drawn([0, 1, 2], seed=1) != drawn([0, 1, 2])


def test_groups_of_equal_size_mix_as_the_outer_graph_does() -> None:
    topology = load("hierarchical", 12, groups=4)
    inside, between = turns(topology)
    np.testing.assert_allclose(inside, np.kron(np.eye(4), np.full((3, 3), 1 / 3)), rtol=0, atol=1e-15)
    ring = turns(load("ring", 4))[0]
    np.testing.assert_allclose(between @ inside, np.kron(ring, np.full((3, 3), 1 / 3)), rtol=0, atol=1e-15)


def test_groups_of_unequal_size() -> None:
    topology = load("hierarchical", 9, groups=[2, 4, 3], outer="path", inner=2)
    assert topology.schedule.period == 3
    assert topology.row(0, turn=0).sources == topology.row(0, turn=1).sources == (1,)
    assert topology.row(5, turn=0).sources == (2, 3, 4)
    assert [topology.row(node, turn=2).sources for node in range(9)] == [
        (2,),
        (3,),
        (0, 6),
        (1, 7),
        (8,),
        (),
        (2,),
        (3,),
        (4,),
    ]
    leaders = load("hierarchical", 9, groups=[2, 4, 3], outer="star", links=1)
    assert [node for node in range(9) if leaders.row(node, turn=1).sources] == [0, 2, 6]
    assert leaders.row(0, turn=1).sources == (2, 6)
    assert load("hierarchical", 10, groups=3).row(3).sources == (0, 1, 2)
    assert load("hierarchical", 5, groups=1).schedule.period == load("hierarchical", 5, groups=5).schedule.period == 1
    assert load("hierarchical", 5, groups=5).edges == load("ring", 5).edges


def test_a_hypercube_one_partner_at_a_time_is_exact_after_its_dimension() -> None:
    topology = load("hypercube", 16, schedule="matchings")
    assert topology.schedule.period == 4
    assert np.abs(off_mean(topology)).max() <= 1e-15


def test_an_epidemic_that_nodes_draw_for_themselves() -> None:
    """Each sends to 3 others in every turn and shares out a quarter to each; how many it hears from varies."""
    schedule = load("epidemic", 12, recipients=3, balanced=False).schedule
    other = load("epidemic", 12, recipients=3, balanced=False, seed=1).schedule
    assert schedule.kind == "column-stochastic"
    heard = np.zeros((12, 12))
    for turn in range(200):
        W = schedule.matrix(turn).dense()
        assert ((W == 0.25).sum(axis=0) == 4).all()
        assert (W.diagonal() == 0.25).all()
        assert (schedule.matrix(turn + 1).dense() != W).any()
        assert (other.matrix(turn).dense() != W).any()
        heard += W > 0
    assert np.abs(heard[~np.eye(12, dtype=bool)] / 200 - 3 / 11).max() < 0.15
    assert len(set((W > 0).sum(axis=1))) > 1
    with pytest.raises(ConfigError, match="recipients=3 and nodes=9 are both odd"):
        load("epidemic", 9, recipients=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("base_k", {"k": 0}, "k=0; a node needs 1 neighbor or more"),
        ("k_peer_exponential", {"k": 0}, "k=0; a node has 1 neighbor or more"),
        ("k_peer_exponential", {"k": 8}, "k=8 for nodes=8; a node has at most nodes-1 neighbors"),
        ("equi_static", {"offsets": 0}, "offsets=0; 1 or more are required"),
        ("equi_dyn", {"eta": 0}, "eta=0.0; required: more than 0, at most 1"),
        ("equi_dyn", {"eta": 1.1}, "eta=1.1; required"),
        ("equi_dyn", {"seed": -1}, "seed=-1; required: 0 or more"),
        ("epidemic", {"recipients": 8}, "recipients=8 for nodes=8; a node sends to 1 to nodes-1 others"),
        ("epidemic", {"recipients": 0}, "recipients=0 for nodes=8"),
        ("epidemic", {"seed": -1}, "seed=-1; required: 0 or more"),
        ("epidemic", {"balanced": False, "weights": "metropolis"}, "need an undirected graph, found a directed one"),
        ("hierarchical", {"groups": [3, 3]}, "groups=[3, 3] for nodes=8; sizes of 1 or more that sum to nodes"),
        ("hierarchical", {"groups": [8, 0]}, "sizes of 1 or more"),
        ("hierarchical", {"groups": 9}, "groups=9 for nodes=8; 1 to nodes are required"),
        ("hierarchical", {"links": 0}, "links=0; 1 or more"),
        ("hierarchical", {"inner": 0}, "inner=0; 1 turn or more"),
        ("hierarchical", {"outer": "tree"}, "found 'tree'"),
        ("directed_exponential", {"weights": "metropolis"}, "need an undirected graph, found a directed one"),
        ("one_peer_exponential", {"weights": "metropolis"}, "need an undirected graph, found a directed one"),
    ],
)
def test_options_that_do_not_fit(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(name, 8, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_small_numbers_of_nodes() -> None:
    for name in FAMILIES:
        for nodes in (1, 2):
            topology = load(name, nodes)
            assert nx.is_connected(topology.graph)
            assert np.abs(turns(topology)[0].sum(axis=0) - 1).max() <= 1e-12


def test_a_hub_that_would_take_a_turn_for_each_of_its_leaves_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"takes 29,999 turns or more.* use schedule: random-matchings"):
        load("star", 30_000, schedule="matchings")
