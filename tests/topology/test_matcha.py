"""MATCHA: probabilities within the budget and best, the bound on E[W^2], and the same draws wherever they are made."""

import subprocess
import sys
from itertools import product

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.topology.matcha import Matcha, matcha
from decentral.topology.matchings import matchings
from decentral.topology.mixing import MixingMatrix
from decentral.topology.stochastic import Floats


def of(graph: nx.Graph, budget: float, seed: int = 0) -> Matcha:
    return matcha(matchings(graph), len(graph), budget, seed)


def laplacians(found: Matcha) -> list[Floats]:
    each, at = [], 0
    for size in found.sizes:
        graph = nx.empty_graph(found.nodes)
        graph.add_edges_from(found.edges[at : at + size].tolist())
        each.append(nx.laplacian_matrix(graph, nodelist=range(found.nodes)).toarray().astype(float))
        at += size
    return each


def connected(nodes: int, density: float, seed: int) -> nx.Graph:
    graph = nx.gnp_random_graph(nodes, density, seed=seed)
    graph.add_edges_from(nx.random_labeled_tree(nodes, seed=seed).edges)
    return graph


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.floats(0, 0.5), st.integers(0, 10_000), st.floats(0.05, 1))
def test_the_bound_holds_over_all_draws(nodes: int, density: float, seed: int, budget: float) -> None:
    """E[W^2] summed over all 2^M draws, where the method has a formula."""
    found = of(connected(nodes, density, seed), budget)
    each, p = laplacians(found), found.probabilities
    assert ((p >= 0) & (p <= 1)).all()
    assert p.sum() <= budget * len(p) * (1 + 1e-3)
    mean, square = np.zeros((nodes, nodes)), np.zeros((nodes, nodes))
    for on in product((False, True), repeat=len(each)):
        chance = np.prod(np.where(on, p, 1 - p))
        W = np.eye(nodes) - found.alpha * sum(
            (L for L, used in zip(each, on, strict=True) if used), np.zeros_like(mean)
        )
        if chance > 0:
            assert W.min() >= -1e-15
        mean, square = mean + chance * W, square + chance * W @ W
    np.testing.assert_allclose(mean.sum(axis=0), 1, rtol=0, atol=1e-12)
    assert np.linalg.norm(square - 1 / nodes, 2) == pytest.approx(found.rho, abs=1e-10)
    assert found.rho < 1


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 10), st.floats(0, 0.6), st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_the_probabilities_connect_the_mean_graph_best(nodes: int, density: float, seed: int, budget: float) -> None:
    found = of(connected(nodes, density, seed), budget)
    each, count, random = laplacians(found), len(found.sizes), np.random.default_rng(seed)

    def second(p: Floats) -> float:
        return float(np.linalg.eigvalsh(np.tensordot(p, each, axes=1))[1])

    assert second(found.probabilities) >= second(np.full(count, budget)) * (1 - 1e-3)
    for _ in range(50):
        p = np.clip(found.probabilities + 0.1 * random.standard_normal(count), 0, 1)
        p *= min(1.0, budget * count / max(p.sum(), 1e-9))
        assert second(p) <= second(found.probabilities) + 2e-3 * budget


@pytest.mark.parametrize(
    ("graph", "budget", "alpha"),
    [
        (nx.cycle_graph(8), 1, 2 / (4 + 2 - np.sqrt(2))),  # 2 / (mu_2 + mu_n), as W is then the same in every turn
        (nx.star_graph(6), 1, 1 / 6),  # 2 / (1 + 7), but the hub may not give away more than it has
        (nx.path_graph(2), 0.5, 1 / 2),
    ],
    ids=["ring", "star", "pair"],
)
def test_known_weights(graph: nx.Graph, budget: float, alpha: float) -> None:
    assert of(graph, budget).alpha == pytest.approx(alpha, abs=1e-6)


def test_a_bridge_is_used_more_often_than_what_is_inside_cliques() -> None:
    found = of(nx.barbell_graph(5, 0), 0.4)
    bridge = next(m for m, L in enumerate(laplacians(found)) if L[4, 5])
    assert found.probabilities[bridge] == found.probabilities.max() > 0.8


def test_turns_are_drawn_with_their_probabilities() -> None:
    found = of(nx.cycle_graph(7), 0.5, seed=3)
    mean = np.mean([found.drawn(turn).dense() for turn in range(1500)], axis=0)
    expected = np.eye(7) - found.alpha * np.tensordot(found.probabilities, laplacians(found), axes=1)
    np.testing.assert_allclose(mean, expected, rtol=0, atol=5 * 0.5 * found.alpha / np.sqrt(1500) * 2)
    for turn in range(20):
        W = found.drawn(turn)
        assert W.kind == "symmetric"
        off = W.dense()[~np.eye(7, dtype=bool)]
        assert set(off[off > 0]) <= {found.alpha}


PROGRAM = """
import networkx as nx
from decentral.topology.matcha import matcha
from decentral.topology.matchings import matchings
graph = nx.convert_node_labels_to_integers(nx.davis_southern_women_graph())
found = matcha(matchings(graph), 32, 0.5, 7)
print({turns}, [found.drawn(turn).dense().tobytes().hex() for turn in {turns}])
"""


def told(turns: tuple[int, ...]) -> dict[int, str]:
    program = PROGRAM.format(turns=list(turns))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    numbers, drawn = done.stdout.split("] [")
    assert numbers == f"{list(turns)}"[:-1]
    return dict(zip(turns, drawn.strip("]\n").split(", "), strict=True))


def test_two_processes_draw_the_same_in_whatever_order() -> None:
    one, other = told((0, 1, 2, 500)), told((500, 2, 0, 1))
    assert one == other
    assert len(set(one.values())) > 1


def test_what_it_does_not_take() -> None:
    with pytest.raises(ConfigError, match="at most 500 nodes and 2,000 edges, found 501 and 501; use schedule: random"):
        of(nx.cycle_graph(501), 0.5)


def test_a_seed_changes_the_draws_alone() -> None:
    one, other = of(nx.cycle_graph(9), 0.5, seed=0), of(nx.cycle_graph(9), 0.5, seed=1)
    assert one.alpha == other.alpha

    def drawn(found: Matcha) -> list[MixingMatrix]:
        return [found.drawn(turn) for turn in range(10)]

    assert any((a.dense() != b.dense()).any() for a, b in zip(drawn(one), drawn(other), strict=True))
