"""Rates on the random quadratic: published values, an exact transition, a simulation, and the two-cliques headline."""

from math import inf

import networkx as nx
import numpy as np
import pytest

from decentral.errors import ConfigError
from decentral.topology.effective_neighbors import effective_neighbors
from decentral.topology.quadratic_rates import QuadraticRates
from decentral.topology.spectrum import spectrum
from decentral.topology.topology import Topology

from .topologies import named, of, one_peer_exponential, random_matchings, two_cliques

GRID = [float(rate) for rate in np.logspace(-3, 0, 120)]
GOLDEN = {  # zeta = 50 on the grid: best learning rate, rate there, largest with a positive rate
    "ring": (0.0926, 0.1256, 0.156),
    "star": (0.0345, 0.0588, 0.058),
    "hypercube": (0.1857, 0.2436, 0.296),
    "complete": (0.3950, 0.3951, 0.748),
}


def rates(topology: Topology, noise: float = 50) -> QuadraticRates:
    return QuadraticRates(effective_neighbors(topology), noise)


def on_the_grid(found: QuadraticRates) -> tuple[float, float, float]:
    curve = [(found.rate(learning_rate) or 0.0, learning_rate) for learning_rate in GRID]
    rate, best = max(curve)
    return best, rate, max(learning_rate for rate, learning_rate in curve if rate > 0)


def exact_rate(W: np.ndarray, learning_rate: float, noise: float) -> float:
    """By the n^2 x n^2 map of C_ij = E x_i . x_j: 1 less its spectral radius."""
    n = len(W)
    own = (1 - learning_rate) ** 2 + (noise - 1) * learning_rate**2
    step = np.where(np.eye(n, dtype=bool), own, (1 - learning_rate) ** 2).ravel()
    return 1 - float(np.abs(np.linalg.eigvals(np.kron(W, W) * step)).max())


@pytest.mark.parametrize("name", GOLDEN)
def test_the_table_of_32_nodes(name: str) -> None:
    found = rates(named(name, 32))
    best, rate, stable = on_the_grid(found)
    assert (best, rate, stable) == pytest.approx(GOLDEN[name], abs=6e-4)
    exact = found.best()
    assert rate <= exact.rate <= rate * 1.01
    assert exact.learning_rate == pytest.approx(best, rel=0.06)
    assert stable <= exact.largest_stable <= stable * 1.06


def test_alone_and_one_partner_a_round() -> None:
    assert on_the_grid(rates(named("ring", 1))) == pytest.approx((0.0205, 0.0200, 0.039), abs=6e-4)
    assert on_the_grid(rates(one_peer_exponential(32))) == pytest.approx((0.1102, 0.1658, 0.156), abs=6e-4)


@pytest.mark.parametrize(("nodes", "noise"), [(1, 50), (8, 50), (32, 10), (64, 50)])
def test_exact_averaging_has_the_rate_of_a_batch_n_times_as_large(nodes: int, noise: float) -> None:
    """r = 2 eta - eta^2 (1 + (zeta - 1) / n): best where eta = r = 1 / (1 + (zeta - 1) / n), zero at twice that."""
    found, expected = rates(named("complete", nodes), noise), 1 / (1 + (noise - 1) / nodes)
    assert found.best().rate == pytest.approx(expected, rel=1e-6)
    assert found.best().learning_rate == pytest.approx(expected, rel=1e-3)
    assert found.best().largest_stable == pytest.approx(2 * expected, rel=1e-5)
    for learning_rate in (0.01, 0.5, 1.0, 1.2):
        by_hand = 2 * learning_rate - learning_rate**2 / expected
        assert found.rate(learning_rate) == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("learning_rate", [0.005, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("name", ["ring", "hypercube"])
def test_where_all_nodes_are_alike_the_rate_is_exact(name: str, learning_rate: float) -> None:
    topology = named(name, 8)
    exact = exact_rate(topology.schedule.matrix(0).dense(), learning_rate, 50)
    assert rates(topology).rate(learning_rate) == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("name", ["star", "tree"])
def test_elsewhere_it_is_a_lower_bound(name: str) -> None:
    topology = named(name, 10)
    for learning_rate in (0.01, 0.03, 0.06):
        exact, found = (
            exact_rate(topology.schedule.matrix(0).dense(), learning_rate, 50),
            rates(topology).rate(learning_rate),
        )
        assert found is not None
        assert 0.7 * exact - 0.01 < found < exact + 1e-9


def test_a_simulated_decay_has_the_predicted_rate() -> None:
    """D-SGD on a ring of 8 in 10 dimensions, zeta = 12, many runs: E||x||^2 shrinks by 1 - r a step."""
    topology, learning_rate, runs, generator = named("ring", 8), 0.15, 20_000, np.random.default_rng(0)
    W = topology.schedule.matrix(0).dense()
    x, squares = np.ones((runs, 8, 10)), []
    for _ in range(16):
        d = generator.standard_normal(x.shape)
        x = np.einsum("ij,rjk->rik", W, x - learning_rate * d * np.einsum("rik,rik->ri", d, x)[..., None])
        squares.append(float((x**2).mean()))
    predicted = rates(topology, noise=12).rate(learning_rate)
    assert predicted == pytest.approx(1 - (squares[-1] / squares[7]) ** (1 / 8), rel=0.05)


def test_two_cliques_have_the_smallest_gap_and_a_better_rate_than_the_hypercube() -> None:
    """Vogels et al. 2022: the gap does not tell the rate. 32 nodes, zeta = 50."""
    others = {name: named(name, 32) for name in ("ring", "star", "hypercube", "torus", "tree")}
    second = {name: spectrum(topology.schedule.matrix(0)).second for name, topology in others.items()}
    cliques = two_cliques(16)
    assert spectrum(cliques.schedule.matrix(0)).second > max(second.values())
    found = {name: rates(topology).best().rate for name, topology in others.items()}
    best = rates(cliques).best()
    assert best.rate == pytest.approx(0.2498, abs=5e-4)
    assert best.rate > max(found.values()) == found["hypercube"]
    # The star's gap is more than twice the ring's, and its rate less than half.
    assert second["star"] < second["ring"]
    assert found["star"] < 0.5 * found["ring"]


def test_random_pairs_are_about_as_good_as_the_exponential_ones() -> None:
    drawn, exponential = rates(random_matchings(32)).best().rate, rates(one_peer_exponential(32)).best().rate
    assert drawn == pytest.approx(exponential, rel=0.1)


def test_so_little_noise_that_nothing_diverges() -> None:
    found = rates(named("complete", 32), noise=1.0001)
    assert found.best().largest_stable == pytest.approx(2, abs=1e-3) or found.best().largest_stable == inf
    assert found.best().rate == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("noise", [1.0, 0.0, -3.0, inf, float("nan")])
def test_noise_is_above_one(noise: float) -> None:
    with pytest.raises(ConfigError, match="required: a number above 1"):
        rates(named("ring", 4), noise)


@pytest.mark.parametrize("learning_rate", [0.0, -0.1, inf, float("nan")])
def test_a_learning_rate_is_above_zero(learning_rate: float) -> None:
    with pytest.raises(ConfigError, match="required: a number above 0"):
        rates(of([nx.cycle_graph(4)])).rate(learning_rate)
