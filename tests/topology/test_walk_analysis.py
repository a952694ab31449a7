"""The closed forms of walks against what tokens do, over the karate club (Zachary 1977) above all."""

from math import inf

import networkx as nx
import numpy as np
import pytest

import decentral.topology.walk_analysis as walk_analysis
from decentral.topology.chains import chain
from decentral.topology.walk_analysis import States, analyze, covariance, logarithmic_marks, survey, transition
from decentral.topology.walks import Walk

KARATE = nx.karate_club_graph()
VISITS, TOKENS = 6000, 400
FUNCTION = np.random.default_rng(0).standard_normal(34)
"""The function on nodes of the reference values below."""


def measured(walk: Walk, tokens: int = TOKENS) -> float:
    """T E|x_T - mu|^2."""
    chained = chain(KARATE, walk)
    shares = survey(chained, VISITS, [VISITS], tokens, seed=0).visits / VISITS
    return VISITS * float(((shares - chained.target) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize(("alpha", "variance"), [(0, 4.795), (1, 1.050), (5, 0.256), (10, 0.131), (20, 0.067)])
def test_the_closed_form_of_the_reference(alpha: float, variance: float) -> None:
    V = covariance(chain(KARATE, Walk("srrw", alpha)))
    assert V is not None
    found = float(FUNCTION @ V @ FUNCTION)
    assert found == pytest.approx(variance, abs=6e-4)


@pytest.mark.parametrize("alpha", [0, 1, 5, 10, 20])
def test_the_variance_law_of_the_self_repellent_walk(alpha: float) -> None:
    """400 tokens: the standard error of the sum over nodes is about 3 %. `python -m tests.topology.variance_law` has
    4000, and the variance of one function.
    """
    assert measured(Walk("srrw", alpha)) == pytest.approx(analyze(chain(KARATE, Walk("srrw", alpha))).variance, rel=0.1)


@pytest.mark.parametrize("alpha", [1, 5])
def test_hdt_divides_the_variance_by_2_alpha_plus_1(alpha: float) -> None:
    """At 6000 visits it still lies up to 10 % above its limit."""
    base, repelled = measured(Walk("metropolis")), measured(Walk("hdt", alpha))
    assert repelled / base == pytest.approx(1 / (2 * alpha + 1), rel=0.15)


@pytest.mark.parametrize("kernel", ["simple", "non-backtracking"])
def test_the_variance_of_the_walks_of_fixed_law(kernel: str) -> None:
    assert measured(Walk(kernel)) == pytest.approx(analyze(chain(KARATE, Walk(kernel))).variance, rel=0.1)


def test_the_variance_of_a_reversible_chain_by_the_linear_system_too() -> None:
    """Two ways to one number: eigenvectors, and (I - P) G = F, which the non-backtracking walk needs."""
    chained = chain(KARATE, Walk("metropolis"))
    again = States(transition(chained), chained.target, np.arange(34), reversible=False).arc_covariance()
    np.testing.assert_allclose(again, covariance(chained), atol=1e-10)


def test_memory_helps_more_the_more_of_it() -> None:
    finals = [
        survey(chain(KARATE, Walk("srrw", alpha)), 2000, [2000], 60, seed=1).distances.mean() for alpha in (0, 1, 5, 20)
    ]
    assert finals == sorted(finals, reverse=True)
    assert finals[-1] < 0.2 * finals[0]


def test_the_predicted_distance() -> None:
    chained = chain(KARATE, Walk("srrw", 5.0))
    found = survey(chained, VISITS, [VISITS], 100, seed=2).distances.mean()
    assert found == pytest.approx(analyze(chained).distance(VISITS), rel=0.1)


def test_a_survey_counts_what_the_paths_hold() -> None:
    chained = chain(KARATE, Walk("srrw", 1.0))
    found = survey(chained, 300, [1, 40, 300], 3, seed=7)
    for token in range(3):
        path = chained.path(7, token, 300)
        assert (found.visits[token] == np.bincount(path, minlength=34)).all()
        for mark, distance in zip((1, 40, 300), found.distances[token], strict=True):
            shares = np.bincount(path[:mark], minlength=34) / mark
            assert distance == pytest.approx(np.abs(shares - 1 / 34).sum() / 2)
        firsts = [int(np.flatnonzero(path == node)[0]) for node in set(path.tolist())]
        assert found.cover[token] == (max(firsts) + 1 if len(firsts) == 34 else -1)


def test_the_cover_time_of_a_ring() -> None:
    """n (n - 1) / 2 hops in the mean, hence one visit more."""
    found = survey(chain(nx.cycle_graph(9), Walk("simple")), 2000, [2000], TOKENS, seed=0)
    assert found.covered == 1
    assert found.cover.mean() == pytest.approx(9 * 8 / 2 + 1, rel=0.08)
    assert found.cover_quantile(0.1) < found.cover_quantile(0.5) < found.cover_quantile(0.9)
    short = survey(chain(nx.cycle_graph(9), Walk("simple")), 8, [8], 10, seed=0)
    assert (short.covered, short.cover_quantile(0.5)) == (0, None)


@pytest.mark.parametrize("walk", [Walk("simple"), Walk("srrw", 5.0), Walk("non-backtracking")])
def test_return_times(walk: Walk) -> None:
    chained = chain(KARATE, walk)
    path = chained.path(0, 0, 100_000)
    for node in (0, 11, 33):
        gaps = np.diff(np.flatnonzero(path == node))
        assert gaps.mean() == pytest.approx(analyze(chained).returns[node], rel=0.1)


@pytest.mark.parametrize("walk", [Walk("metropolis"), Walk("simple")])
def test_the_mixing_time_is_the_first_time_within_a_quarter(walk: Walk) -> None:
    chained = chain(KARATE, walk)
    P, time = transition(chained).toarray(), int(analyze(chained).mixing or 0)

    def farthest(hops: int) -> float:
        law = np.linalg.matrix_power(P, hops)
        return float(np.abs(law - chained.target).sum(axis=1).max() / 2)

    assert farthest(time) <= 0.25 < farthest(time - 1)


@pytest.mark.parametrize(
    ("graph", "kernel", "gap", "mixing"),
    [
        (nx.complete_graph(5), "simple", 0.75, 1),
        (nx.path_graph(2), "metropolis", 0, inf),
        (nx.star_graph(4), "simple", 0, inf),
        (nx.star_graph(4), "metropolis", 0.25, 4),
        (nx.cycle_graph(7), "non-backtracking", 0, inf),
        (nx.empty_graph(1), "metropolis", 1, 1),
    ],
)
def test_gaps_and_mixing_times_of_simple_graphs(graph: nx.Graph, kernel: str, gap: float, mixing: float) -> None:
    found = analyze(chain(graph, Walk(kernel)))
    assert found.gap == pytest.approx(gap, abs=1e-12)
    assert found.mixing == mixing
    assert found.mixing_exact


def test_a_walk_round_a_ring_has_no_variance() -> None:
    assert analyze(chain(nx.cycle_graph(7), Walk("non-backtracking"))).variance == pytest.approx(0, abs=1e-12)


def test_a_path_of_two_alternates() -> None:
    found = survey(chain(nx.path_graph(2), Walk("simple")), 1000, [1000], 5, seed=0)
    assert (found.visits == 500).all()
    assert analyze(chain(nx.path_graph(2), Walk("srrw", 3.0))).variance == pytest.approx(0, abs=1e-15)


def test_large_graphs_get_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = analyze(chain(KARATE, Walk("metropolis")))
    monkeypatch.setattr(walk_analysis, "EXACT_NODES", 10)
    monkeypatch.setattr(walk_analysis, "EXACT_STATES", 10)
    bounded = analyze(chain(KARATE, Walk("metropolis")))
    assert bounded.gap == pytest.approx(exact.gap, abs=1e-6)
    assert (bounded.mixing_exact, bounded.covariance, bounded.distance(5)) == (False, None, None)
    assert bounded.mixing is not None
    assert exact.mixing is not None
    assert exact.mixing <= bounded.mixing < 10 * exact.mixing
    arcs = analyze(chain(KARATE, Walk("non-backtracking")))
    assert (arcs.gap, arcs.mixing, arcs.variance) == (None, None, None)


@pytest.mark.parametrize("visits", [1, 2, 9, 1000, 123_456])
def test_marks(visits: int) -> None:
    marks = logarithmic_marks(visits)
    assert marks == sorted(set(marks))
    assert marks[0] >= 1
    assert marks[-1] == visits
    assert len(marks) <= 70
    assert visits < 10 or visits // 10 in marks
