"""Identities and fixed points of methods with momentum over the graph and of those that correct the bias of data."""

from collections.abc import Callable
from typing import get_args

import networkx as nx
import numpy as np
import pytest
import torch

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.d2 import D2
from decentral.algorithms.decentlam import DecentLaM
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.exact_diffusion import ExactDiffusion
from decentral.algorithms.global_update_tracking import GlobalUpdateTracking
from decentral.algorithms.gradient_tracking import GradientTracking, TrackingOrder
from decentral.algorithms.momentum_tracking import MomentumTracking
from decentral.algorithms.quasi_global_adam import normalize_
from decentral.algorithms.quasi_global_momentum import QuasiGlobalMomentum
from decentral.algorithms.slowmo import SlowMo
from decentral.peer import Block
from decentral.topology.lazy import lazy
from decentral.topology.topology import Topology
from tests.contract.drift import BUFFERED, drift
from tests.contract.oracle import Matrix
from tests.contract.problems import DIMENSION, Quadratics, alone, dense, graph
from tests.contract.runs import Recorder, same, sgd, simulate
from tests.contract.test_algorithms import CASES, Case, built, common_start

orders = get_args(TrackingOrder)
TRACKING: dict[str, Algorithm] = {
    **{order: GradientTracking(local=sgd(0.1), order=order) for order in orders},
    "momentum": MomentumTracking(local=sgd(0.03), momentum=0.7),
}
every_tracking = pytest.mark.parametrize("algorithm", TRACKING.values(), ids=TRACKING)


# Methods that must agree.


@pytest.mark.parametrize(
    ("on", "options"),
    [("ring-8", {}), ("path-4", {"momentum": 0.5, "weight_decay": 0.1, "drop": 90})],
    ids=["ring-8", "path-4 with momentum, decay and a drop of the rate"],
)
def test_d2_is_exact_diffusion(on: str, options: dict[str, float]) -> None:
    topology, rounds = graph(on), 200
    problem, local = Quadratics.draw(topology.nodes, noisy_rounds=rounds), sgd(0.05, **options)
    one, other = (
        simulate(algorithm, where, problem.answers(), common_start(problem), rounds)
        for algorithm, where in ((D2(local=local), lazy(topology)), (ExactDiffusion(local=local), topology))
    )
    np.testing.assert_allclose(one.models, other.models, rtol=0, atol=2e-14)


EQUAL: dict[str, tuple[Algorithm, Algorithm]] = {
    "momentum tracking without momentum is gradient tracking": (
        MomentumTracking(local=sgd(0.05), momentum=0),
        GradientTracking(local=sgd(0.05), order="adapt-while-communicate"),
    ),
    "DecentLaM without momentum is D-SGD": (DecentLaM(local=sgd(0.05), momentum=0), DSGD(local=sgd(0.05))),
    "QG-DSGDm with mu = 1 is D-SGD": (
        QuasiGlobalMomentum(local=sgd(0.05), mu=1, nesterov=False),
        DSGD(local=sgd(0.05)),
    ),
    "QG-DSGDm-N with mu = 1 is D-SGD with (1 + beta) lr": (
        QuasiGlobalMomentum(local=sgd(0.05), mu=1, momentum=0.6),
        DSGD(local=sgd(0.08)),
    ),
    "GUT with mu = 0 is combine-then-adapt": (
        GlobalUpdateTracking(local=sgd(0.05), mu=0),
        DSGD(local=sgd(0.05), order="combine-then-adapt"),
    ),
    "SlowMo that changes nothing is D-SGD": (
        SlowMo(local=sgd(0.05, momentum=0.9), every=3, slow_momentum=0, average="none"),
        DSGD(local=sgd(0.05, momentum=0.9)),
    ),
}


@pytest.mark.parametrize(("one", "other"), EQUAL.values(), ids=EQUAL)
def test_reductions(one: Algorithm, other: Algorithm) -> None:
    problem, topology, rounds = Quadratics.draw(8, noisy_rounds=30), graph("ring-8"), 30
    models = [
        simulate(algorithm, topology, problem.answers(), common_start(problem), rounds).models
        for algorithm in (one, other)
    ]
    np.testing.assert_allclose(*models, rtol=0, atol=1e-12)


@pytest.mark.parametrize("every", [1, 3])
def test_slowmo_over_local_steps_that_changes_nothing_is_periodic_averaging(every: int) -> None:
    """D-SGD on the complete graph mixes in every tau-th round too, and with W = J that is the exact average."""
    problem, rounds = Quadratics.draw(8, noisy_rounds=30), 30
    local, whole = sgd(0.05, momentum=0.9), Topology.static("complete", nx.complete_graph(8), "uniform")
    slow = SlowMo(local=local, every=every, slow_momentum=0, gossip=False)
    averaged = DSGD(local=local, every=every)
    models = [
        simulate(algorithm, whole, problem.answers(), common_start(problem), rounds).models
        for algorithm in (slow, averaged)
    ]
    np.testing.assert_allclose(*models, rtol=0, atol=1e-12)


# Alone, without edges, and with exact averages.


@pytest.mark.parametrize("nesterov", [True, False])
def test_quasi_global_momentum_alone(nesterov: bool) -> None:
    """mhat+ = (mu + (1 - mu) beta) mhat + (1 - mu) g, a step along g + beta mhat: not plain momentum."""
    beta, mu, lr, rounds = 0.7, 0.8, 0.05, 40
    problem = Quadratics.draw(1, noisy_rounds=rounds)
    gradient, x, mhat = problem.gradients(), problem.starts(), np.zeros((1, DIMENSION))
    for _ in range(rounds):
        g = gradient(x)
        step = (1 + beta) * g + beta**2 * mhat if nesterov else g + beta * mhat
        x, mhat = x - lr * step, mu * mhat + (1 - mu) * step
    algorithm = QuasiGlobalMomentum(local=sgd(lr), momentum=beta, mu=mu, nesterov=nesterov)
    run = simulate(algorithm, alone(1), problem.answers(), problem.starts(), rounds)
    np.testing.assert_allclose(run.final, x, rtol=0, atol=1e-13)
    np.testing.assert_allclose(run.states[0].momentum.numpy()[None], mhat, rtol=0, atol=1e-12)  # type: ignore[attr-defined]


SOLITARY = [  # relay-sgd needs a tree of all nodes, and counts those that it has not heard of
    pytest.param(name, case, id=f"{name} {label}")
    for name, cases in CASES.items()
    for label, case in cases.items()
    if case.brief and case.tolerance is None and not (case.by_node or case.centralized or name == "relay-sgd")
]


@pytest.mark.parametrize(("name", "case"), SOLITARY)
def test_without_edges_every_node_runs_alone(name: str, case: Case) -> None:
    problem, rounds, algorithm = Quadratics.draw(3, noisy_rounds=9), 9, built(name, case)
    together = simulate(algorithm, alone(3), problem.answers(), problem.starts(), rounds)
    for node in range(3):
        solo = simulate(algorithm, alone(1), [problem.gradient(node)], problem.starts()[node : node + 1], rounds)
        assert same(together.states[node], solo.states[0])
    assert not any(together.bytes_sent.values())


LINEAR: dict[str, Algorithm] = {
    **{f"gradient tracking {order}": GradientTracking(local=sgd(0.05, momentum=0.5), order=order) for order in orders},
    "d2": D2(local=sgd(0.05, momentum=0.5)),
    "exact diffusion": ExactDiffusion(local=sgd(0.05, momentum=0.5)),
    "qg-dsgdm-n": QuasiGlobalMomentum(local=sgd(0.05)),
    "qg-dsgdm": QuasiGlobalMomentum(local=sgd(0.05), nesterov=False),
    "decentlam": DecentLaM(local=sgd(0.05)),
    "slowmo": SlowMo(local=sgd(0.05, momentum=0.5), every=4),
    "momentum tracking": MomentumTracking(local=sgd(0.05)),
    "gut": GlobalUpdateTracking(local=sgd(0.05)),
}


@pytest.mark.parametrize("algorithm", LINEAR.values(), ids=LINEAR)
def test_with_exact_averages_the_mean_is_one_node_with_the_mean_gradient(algorithm: Algorithm) -> None:
    """W = J, and one curvature for all, so that the mean gradient is that at the mean model."""
    whole, rounds = Topology.static("complete", nx.complete_graph(6), "uniform"), 25
    problem = Quadratics.isotropic(6, 1.5)
    mean = Quadratics(problem.A[:1], problem.b.mean(axis=0, keepdims=True), problem.noise[:, :1])
    run = simulate(algorithm, whole, problem.answers(), common_start(problem), rounds)
    solo = simulate(algorithm, alone(1), mean.answers(), problem.starts()[:1], rounds)
    np.testing.assert_allclose(run.models.mean(axis=1), solo.models[:, 0], rtol=0, atol=1e-11)


# Invariants.


@every_tracking
@pytest.mark.parametrize("rounds", [1, 2, 20])
def test_the_mean_of_what_is_tracked_is_the_mean_gradient(algorithm: Algorithm, rounds: int) -> None:
    """Of the momenta, for momentum tracking. That keeps the mean on the way of centralized training."""
    problem, topology = Quadratics.draw(8, noisy_rounds=rounds), graph("ring-8")
    recorders = [Recorder.of(gradient) for gradient in problem.answers()]
    run = simulate(algorithm, topology, recorders, common_start(problem), rounds)
    decay = algorithm.momentum if isinstance(algorithm, MomentumTracking) else 0.0
    expected = torch.zeros(DIMENSION, dtype=torch.float64)
    for k in range(rounds):
        expected = decay * expected + torch.stack([recorder.answers[k] for recorder in recorders]).mean(dim=0)
    tracked = torch.stack([state.tracked for state in run.states.values()]).mean(dim=0)  # type: ignore[attr-defined]
    torch.testing.assert_close(tracked, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("algorithm", BUFFERED.values(), ids=BUFFERED)
def test_corrections_keep_their_sum(algorithm: Algorithm) -> None:
    """Under bfloat16 parameters. As sums of W x - x, whose rows sum to 1 + 1e-8, they were off by 1e-6 here, and by
    more in every round. `python -m tests.contract.drift` measures 10,000 rounds."""
    assert drift(algorithm, graph("path-4"), 60, torch.bfloat16) < 1e-12


# Fixed points and where they lie.


def fixed_point(problem: Quadratics, W: Matrix, lr: float) -> Matrix:
    """Where adapt-then-combine D-SGD rests: X = W (X - lr A (X - b)), (n, d)."""
    n, d = problem.b.shape
    descent = np.eye(n * d)
    for node in range(n):
        place = slice(node * d, (node + 1) * d)
        descent[place, place] -= lr * problem.A[node]
    pull = lr * np.einsum("nij,nj->ni", problem.A, problem.b)
    mixed = np.kron(W, np.eye(d))
    return np.linalg.solve(np.eye(n * d) - mixed @ descent, mixed @ pull.ravel()).reshape(n, d)


def rests_at(algorithm: Algorithm, problem: Quadratics, topology: Topology, rounds: int) -> Matrix:
    run = simulate(algorithm, topology, problem.answers(), np.zeros((problem.nodes, DIMENSION)), rounds)
    np.testing.assert_allclose(run.models[-1], run.models[-2], rtol=0, atol=1e-10)
    return run.final


RESTS: dict[str, tuple[Callable[[float], Algorithm], Callable[[float], float], float]] = {
    "local momentum": (lambda beta: DSGD(local=sgd(0.02, momentum=beta)), lambda beta: 0.02 / (1 - beta), 0.9),
    "decentlam": (lambda beta: DecentLaM(local=sgd(0.1), momentum=beta), lambda beta: 0.1, 0.9),
    "decentlam, less momentum": (lambda beta: DecentLaM(local=sgd(0.1), momentum=beta), lambda beta: 0.1, 0.5),
    "qg-dsgdm": (
        lambda beta: QuasiGlobalMomentum(local=sgd(0.1), momentum=beta, nesterov=False),
        lambda beta: 0.1,
        0.9,
    ),
    "qg-dsgdm-n": (
        lambda beta: QuasiGlobalMomentum(local=sgd(0.05), momentum=beta),
        lambda beta: 0.05 * (1 + beta),
        0.9,
    ),
}


@pytest.mark.parametrize(("algorithm", "rate", "beta"), RESTS.values(), ids=RESTS)
def test_where_momentum_rests(
    algorithm: Callable[[float], Algorithm], rate: Callable[[float], float], beta: float
) -> None:
    """Local momentum rests where D-SGD with a rate 1 / (1 - beta) as large does; the others add no bias."""
    problem, topology = Quadratics.draw(4), graph("path-4")
    expected = fixed_point(problem, dense(topology), rate(beta))
    found = rests_at(algorithm(beta), problem, topology, 800)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_where_global_update_tracking_rests() -> None:
    """At combine-then-adapt D-SGD's fixed point with (1 - mu) lr; its mixed models at that of adapt-then-combine."""
    problem, topology = Quadratics.draw(4), graph("path-4")
    found = rests_at(GlobalUpdateTracking(local=sgd(0.1), mu=0.8), problem, topology, 500)
    expected = fixed_point(problem, dense(topology), 0.02)
    np.testing.assert_allclose(dense(topology) @ found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("mu", [0.5, 0.9])
def test_global_update_tracking_needs_eigenvalues_above_its_bound(mu: float) -> None:
    """Two nodes without gradients; their matrix has the eigenvalues 1 and l: above it they agree, below they part."""
    algorithm, bound, apart = GlobalUpdateTracking(local=sgd(0.1), mu=mu), -1 / (1 + 2 * mu), {}
    drawn = Quadratics.draw(2)
    problem, starts = Quadratics(np.zeros_like(drawn.A), drawn.b, drawn.noise), drawn.starts()
    for last in (bound + 0.01, bound - 0.01):
        pair = Topology.static("pair", nx.Graph([(0, 1, {"weight": (1 - last) / 2})]), "given")
        models = simulate(algorithm, pair, problem.answers(), starts, 1200).models
        apart[last] = float(np.linalg.norm(models[-1, 0] - models[-1, 1]))
        suited, told = algorithm.suited(pair)
        assert (suited is pair, bool(told)) == (last > bound, last < bound)
    above, below = apart.values()
    assert above < 1e-3 < 1e3 < below


CORRECTED: dict[str, tuple[Algorithm, float]] = {
    "gradient tracking mixed": (GradientTracking(local=sgd(0.1)), 1e-19),
    "gradient tracking adapt-then-combine": (GradientTracking(local=sgd(0.1), order="adapt-then-combine"), 1e-19),
    "gradient tracking adapt-while-communicate": (
        GradientTracking(local=sgd(0.12), order="adapt-while-communicate"),
        1e-19,
    ),
    "momentum tracking": (MomentumTracking(local=sgd(0.03), momentum=0.7), 1e-19),
    "d2": (D2(local=sgd(0.2)), 1e-19),
    "exact diffusion": (ExactDiffusion(local=sgd(0.2)), 1e-19),
    "d-sgd": (DSGD(local=sgd(0.2)), 1e3),
}


def test_unequal_data_leave_no_bias_where_it_is_corrected() -> None:
    problem, topology, reached = Quadratics.draw(4), graph("path-4"), {}
    for name, (algorithm, bound) in CORRECTED.items():
        where = algorithm.suited(topology)[0]
        run = simulate(algorithm, where, problem.answers(), np.zeros((4, DIMENSION)), 560)
        reached[name] = float(np.square(run.final - problem.optimum).sum())
        assert reached[name] <= bound, reached
    assert reached["d-sgd"] > 1


# Where D2 works.


def ring_with_own_weight(nodes: int, own: float) -> Topology:
    ring = nx.cycle_graph(nodes)
    nx.set_edge_attributes(ring, (1 - own) / 2, "weight")
    return Topology.static("ring", ring, "given")


def test_d2_diverges_where_an_eigenvalue_is_below_its_bound() -> None:
    problem, beyond = Quadratics.draw(8), ring_with_own_weight(8, 0.1)
    run = simulate(D2(local=sgd(0.05)), beyond, problem.answers(), common_start(problem), 350)
    assert np.abs(run.final).max() > 1e100
    suited = D2(local=sgd(0.05)).suited(beyond)[0]
    run = simulate(D2(local=sgd(0.05)), suited, problem.answers(), common_start(problem), 350)
    assert np.abs(run.final).max() < 100


def test_each_output_channel_is_divided_by_its_norm() -> None:
    layout = (
        Block("matrix", (2, 3), 0),
        Block("kernel", (2, 1, 2), 6),
        Block("bias", (3,), 10),
        Block("scale", (), 13),
    )
    gradient = torch.tensor([3.0, 0, 4, 0, 0, 2, 6, 8, -1, 0, 0, 5, 0, -7])
    normalize_(gradient, layout)
    expected = [0.6, 0, 0.8, 0, 0, 1, 0.6, 0.8, -1, 0, 0, 1, 0, -1]
    torch.testing.assert_close(gradient, torch.tensor(expected), rtol=0, atol=1e-7)
