"""Every method on every family of graphs that change from turn to turn: it computes its equations with the matrix of
each turn, or is refused with the reason."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from decentral.algorithms import ALGORITHMS
from decentral.errors import ConfigError
from decentral.topology.topology import Topology
from decentral.training.algorithm import between_nodes
from tests.contract import oracle
from tests.contract.directed import directed
from tests.contract.oracle import Equations, Gradients, Matrix, Sgd
from tests.contract.problems import Quadratics, shipped
from tests.contract.runs import sgd, simulate
from tests.contract.test_algorithms import CASES, built, common_start

FIXED = {
    "d2": "changes from turn to turn, and D2 needs the same in all",
    "exact-diffusion": "changes from turn to turn, and Exact Diffusion needs the same in all",
    "gut": "changes from turn to turn, and GUT needs the same in all",
    "lead": "changes from turn to turn, and LEAD needs the same in all",
    "beer": "changes from turn to turn, and BEER needs the same in all",
    "motef": "changes from turn to turn, and MoTEF needs the same in all",
    "dcd": "changes from turn to turn, and DCD-PSGD needs the same in all",
    "ecd": "changes from turn to turn, and ECD-PSGD needs the same in all",
    "power-gossip": "are not the same in all rounds",
}
DRAWN = {"relay-sgd": "draws its links anew in each turn"}
LOOSE = {"relay-sgd": "does not connect all nodes"}
ONE_WAY = {"relay-sgd": "needs undirected links"}
SYMMETRIC = ("d2", "exact-diffusion", "decentlam", "lead", "beer", "motef", "power-gossip")
ARROWS = FIXED | dict.fromkeys(SYMMETRIC, "needs one that is symmetric")
COLUMNS = dict.fromkeys((name for name in CASES if name != "sgp"), "is column-stochastic")

FAMILIES: dict[str, tuple[dict[str, Any] | None, int, dict[str, str]]] = {
    "matcha": ({"name": "torus", "schedule": {"name": "matcha", "budget": 0.5}}, 9, FIXED | DRAWN),
    "matchings": ({"name": "ring", "schedule": "matchings"}, 7, FIXED | LOOSE),
    "random matchings": ({"name": "hypercube", "schedule": "random-matchings"}, 8, FIXED | DRAWN),
    "EquiDyn": ({"name": "equi_dyn"}, 7, FIXED | DRAWN),
    "EquiDyn, directed": ({"name": "equi_dyn", "directed": True}, 7, ARROWS | DRAWN),
    "Base-2": ({"name": "base_k"}, 7, FIXED | LOOSE),
    "Base-3": ({"name": "base_k", "k": 2}, 10, FIXED | LOOSE),
    "one-peer exponential": ({"name": "one_peer_exponential"}, 8, ARROWS | ONE_WAY),
    "2-peer exponential": ({"name": "k_peer_exponential", "k": 2}, 9, ARROWS | ONE_WAY),
    "groups": ({"name": "hierarchical", "groups": 3}, 9, FIXED | LOOSE),
    "double trees": (
        {"name": "double_binary_trees", "apart": True},
        7,
        FIXED | {"relay-sgd": r"has 2 tree\(s\), one for each of its turns; found trees: 1"},
    ),
    "one way": (None, 4, COLUMNS | ONE_WAY),
}
"""Topology section, nodes, and who is refused why. All others run."""

SELDOM = ("gasloc", "noloco")
"""Their turns are of outer steps."""

ELSEWHERE = ("choco", "sparseloco", "epidemic")
"""Held to their equations by tests of their own: copies for each edge, and a graph of draws."""

METHODS = [name for name in ALGORITHMS if not next(iter(CASES[name].values())).centralized and name not in ELSEWHERE]
ROUNDS = 20


@cache
def family(name: str) -> Topology:
    section, nodes, _ = FAMILIES[name]
    if section is None:
        return directed("one-way-4")
    return shipped(nodes=nodes, **section)


class Turns:
    """W of an oracle, which is that of the round whose gradient was asked last.

    Args:
        every: rounds that each turn lasts.
    """

    def __init__(self, topology: Topology, gradients: Gradients, every: int) -> None:
        self._topology, self._gradients, self._round, self._every = topology, gradients, -1, every

    def grad(self, X: Matrix) -> Matrix:
        self._round += 1
        return self._gradients(X)

    def __matmul__(self, X: Matrix) -> Matrix:
        return np.asarray(self._topology.schedule.matrix(self._round // self._every).dense() @ X)

    def __len__(self) -> int:
        return self._topology.nodes


def push(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
    """X and w are sums: X+ = W (X - lr g(X / w)), w+ = W w."""
    w = np.ones((len(X), 1))
    for _ in range(rounds):
        half = X - sgd.step(grad(X / w), at=X / w)
        X, w = W @ half, W @ w
    return X / w


def tracking(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
    """x and y of a round are mixed with one matrix: X+ = W (X - lr Y), Y+ = W Y + G+ - G."""
    mixed = before = np.zeros_like(X)
    for _ in range(rounds):
        G = grad(X)
        Y, before = mixed + G - before, G
        X, mixed = W @ (X - sgd.step(Y, at=X)), W @ Y
    return X


def momentum_tracking(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
    """x and the y of the round before are sent together: Y = W Y- + U - U-, X+ = W X - lr Y."""
    U = Y = np.zeros_like(X)
    for k in range(rounds):
        before, U = U, 0.8 * U + grad(X) + sgd.weight_decay * X
        Y = W @ Y + U - before
        X = W @ X - sgd.rate(k) * Y
    return X


OF_TURNS: dict[str, Equations] = {"sgp": push, "gradient-tracking": tracking, "momentum-tracking": momentum_tracking}
"""Where those for one W leave open which turn's it is."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("on", FAMILIES)
def test_it_runs_with_the_matrix_of_each_turn_or_says_why_not(on: str, method: str) -> None:
    graph, refusals = family(on), FAMILIES[on][2]
    case = next(iter(CASES[method].values()))
    algorithm = built(method, case, sgd(0.02, weight_decay=0.1))
    if method in refusals:
        with pytest.raises(ConfigError, match=refusals[method]):
            between_nodes(algorithm, graph, ())
        return
    topology = between_nodes(algorithm, graph, ())
    problem = Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS)
    run = simulate(algorithm, topology, problem.answers(), common_start(problem), ROUNDS)
    turns = Turns(graph, problem.gradients(), case.settings["every"] if method in SELDOM else 1)
    steps = oracle.Sgd(lr=0.02, weight_decay=0.1)
    equations = OF_TURNS.get(method, case.equations)
    expected = equations(common_start(problem), turns, turns.grad, steps, ROUNDS)  # type: ignore[arg-type]
    np.testing.assert_allclose(run.final, expected, rtol=0, atol=1e-10)


def test_the_matrices_change() -> None:
    """Else all of this would say nothing."""
    for name in FAMILIES:
        topology = family(name)
        turns = [topology.schedule.matrix(turn).dense() for turn in range(8)]
        assert any((turns[0] != W).any() for W in turns), name
