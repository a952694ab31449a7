"""Consensus control: a wrapper, so held to a contract of its own, against equations with the same choice of k."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from decentral.algorithms import ALGORITHMS
from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.consensus_control import ConsensusControl, steps_to
from decentral.algorithms.controllable import WHY_NOT, controllable
from decentral.algorithms.decentlam import DecentLaM
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.gradient_tracking import GradientTracking
from decentral.algorithms.momentum_tracking import MomentumTracking
from decentral.algorithms.quasi_global_adam import QuasiGlobalAdam
from decentral.algorithms.quasi_global_momentum import QuasiGlobalMomentum
from decentral.algorithms.slowmo import SlowMo
from decentral.algorithms.sparta import Sparta
from decentral.errors import ConfigError
from decentral.topology.extra_gossip import ExtraGossip
from decentral.topology.topology import Topology
from decentral.transport.dry import DryNode
from decentral.transport.world import World
from tests.contract.oracle import Matrix
from tests.contract.problems import DIMENSION, LAYOUTS, Quadratics, dense, graph, shipped
from tests.contract.ranks import WIRES, on_ranks
from tests.contract.runs import Run, peer_at, play, same, sgd, simulate
from tests.contract.test_algorithms import common_start

ROUNDS = 30
LOCAL = sgd(0.05, weight_decay=0.1)
CONTROLLABLE: dict[str, Algorithm] = {
    "dsgd": DSGD(local=LOCAL),
    "dsgd cta every 3": DSGD(local=LOCAL, order="combine-then-adapt", every=3),
    "dsgd awc": DSGD(local=LOCAL, order="adapt-while-communicate"),
    "qg-dsgdm": QuasiGlobalMomentum(local=LOCAL),
    "qg-dadam": QuasiGlobalAdam(local=LOCAL, epsilon=1e-3),
    "decentlam": DecentLaM(local=LOCAL, momentum=0.5),
    "gradient-tracking": GradientTracking(local=LOCAL),
    "momentum-tracking": MomentumTracking(local=LOCAL, momentum=0.5),
    "slowmo": SlowMo(local=LOCAL, every=4),
    "sparta": Sparta(local=LOCAL, fraction=0.3),
}
every_method = pytest.mark.parametrize("of", CONTROLLABLE.values(), ids=CONTROLLABLE)


def controlled(of: Algorithm, topology: Topology, target: float | None, **options: Any) -> ConsensusControl:
    return ConsensusControl(local=of.local, of=of, target=target, **options).on(topology)


def run(algorithm: Algorithm, topology: Topology, rounds: int = ROUNDS, starts: Matrix | None = None) -> Run:
    problem = Quadratics.draw(topology.nodes, noisy_rounds=rounds)
    start = common_start(problem) if starts is None else starts
    return simulate(algorithm, topology, problem.answers(), start, rounds)


def distances(models: Matrix) -> Matrix:
    """Xi before the first round and after each: (rounds + 1,)."""
    apart = models - models.mean(axis=1, keepdims=True)
    return np.asarray(np.sqrt((apart**2).sum(axis=2).mean(axis=1)))


def further_steps(X: Matrix, W: Matrix, target: float, most: int) -> tuple[Matrix, int]:
    """A third of the steps that rho brings the bound to the target in, over and over; X+ = W^k X."""
    eigenvalues, steps = np.linalg.eigvalsh(W), 0
    rho = max(eigenvalues[-2], -eigenvalues[0])
    while steps < most:
        differences = sum(W[i, j] * ((X[i] - X[j]) ** 2).sum() for i, j in zip(*W.nonzero(), strict=True))
        bound, k = np.sqrt(differences / (2 * len(W)) / (1 - eigenvalues[-2])), 0
        while bound * rho**k > target:
            k += 1
        third = min(math.ceil(k / 3), most - steps)
        X, steps = np.linalg.matrix_power(W, third) @ X, steps + third
        if k <= 1:
            break
    return X, steps


@pytest.mark.parametrize(("relative", "target"), [(False, 0.5), (True, 0.8)], ids=["absolute", "relative"])
@pytest.mark.parametrize("on", ["ring-9", "star-32", "social-32"])
def test_it_computes_its_equations(on: str, relative: bool, target: float) -> None:
    """D-SGD and control, in a phase without control too, and where max_steps cuts short."""
    topology, lr, most = graph(on), 0.05, 15
    W, problem = dense(topology), Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS)
    phases = [(12, None), (18, 2 * target)]
    algorithm = controlled(DSGD(local=sgd(lr)), topology, target, relative=relative, phases=phases, max_steps=most)
    found = simulate(algorithm, topology, problem.answers(), common_start(problem), ROUNDS)
    grad, X, scale, taken = problem.gradients(), common_start(problem), 0.0, []
    for k in range(ROUNDS):
        G = grad(X)
        X = W @ (X - lr * G)
        if 12 <= k < 18:
            continue
        size = lr * np.sqrt((G**2).sum(axis=1).mean())
        scale = 0.9 * scale + 0.1 * size if scale else size
        X, steps = further_steps(X, W, (target if k < 12 else 2 * target) * (scale if relative else 1), most)
        taken.append(steps)
    np.testing.assert_allclose(found.final, X, rtol=0, atol=1e-10)
    assert {state.extra_steps for state in found.states.values()} == {sum(taken)}  # type: ignore[attr-defined]
    assert sum(taken) > 0
    assert on == "star-32" or sum(taken) < most * len(taken)


@every_method
def test_nodes_stay_within_the_target_and_the_mean_is_the_methods_own(of: Algorithm) -> None:
    """After every round, by the exact distance; without control they do not."""
    topology = graph("ring-8")
    alone = distances(run(of, topology).models)
    target = float(alone[1:].max()) / 4
    kept = run(controlled(of, topology, target), topology)
    assert (distances(kept.models) <= target).all()
    state: Any = kept.states[0]
    assert distances(kept.models)[-1] <= state.bound <= target
    assert state.extra_steps > 0
    assert state.short == 0


@every_method
@pytest.mark.parametrize("target", [None, math.inf])
def test_without_a_target_it_is_the_method_to_the_bit(of: Algorithm, target: float | None) -> None:
    topology = graph("ring-8")
    plain, wrapped = (run(algorithm, topology, 9) for algorithm in (of, controlled(of, topology, target)))
    assert plain.models.tobytes() == wrapped.models.tobytes()
    assert plain.bytes_sent == wrapped.bytes_sent


@every_method
def test_a_target_that_is_never_reached_costs_its_watch_alone(of: Algorithm) -> None:
    """A model to each neighbor, and two numbers of each node as often as there are hops; as a dry run foretells."""
    topology = graph("ring-8")
    plain, wrapped = (run(algorithm, topology, 9) for algorithm in (of, controlled(of, topology, 1e9)))
    assert plain.models.tobytes() == wrapped.models.tobytes()
    watch = 9 * 2 * (64 + 8 * DIMENSION + 4 * (64 + 8 * 16))
    assert {wrapped.bytes_sent[node] - plain.bytes_sent[node] for node in range(8)} == {watch}
    assert foretold(controlled(of, topology, 1e9), topology, 9) == wrapped.bytes_sent[0]
    assert foretold(controlled(of, topology, 1e-9, relative=True), topology, 9) == wrapped.bytes_sent[0]


def foretold(algorithm: Algorithm, topology: Topology, rounds: int) -> int:
    """By a dry run of node 0."""
    dry, peer = DryNode(topology.nodes), peer_at(topology, 0, LAYOUTS["one block"])
    state = algorithm.init(torch.empty(DIMENSION, dtype=torch.float64, device="meta"), peer)
    for peer.round in range(rounds):
        dry.advance(algorithm.step(state, peer))
    return dry.bytes_sent


def test_a_step_costs_no_more_models_than_the_look_before_it() -> None:
    """So further exchanges are as many as steps, and one more in rounds that ended with a look."""
    topology = graph("ring-8")
    kept = run(controlled(DSGD(local=LOCAL), topology, 0.3), topology)
    posted = [shapes for round in kept.posted for shapes in round[0]]
    state: Any = kept.states[0]
    assert sum(shapes == (((DIMENSION,), torch.float64),) for shapes in posted) == ROUNDS + state.exchanges
    assert ROUNDS < state.extra_steps <= state.exchanges <= state.extra_steps + ROUNDS
    assert kept.bytes_sent[0] == sum(2 * (64 + 8 * math.prod(shape)) for ((shape, _),) in posted)


def test_it_takes_few_more_steps_than_the_exact_distance_asks_for() -> None:
    """Nodes end near the target, not far below: one look a round would take 2.5 times the steps."""
    topology, target = graph("ring-16"), 0.3
    kept = run(controlled(DSGD(local=LOCAL), topology, target), topology)
    state: Any = kept.states[0]
    assert np.median(distances(kept.models)[1:]) > target / 2
    assert state.extra_steps < 1.1 * steps_by_the_exact_distance(topology, target)


def steps_by_the_exact_distance(topology: Topology, target: float) -> int:
    """How many an oracle takes that sees Xi, and stops at once."""
    W, problem, taken = dense(topology), Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS), 0
    grad, X = problem.gradients(), common_start(problem)
    for _ in range(ROUNDS):
        X = W @ (X - 0.05 * (grad(X) + 0.1 * X))
        while distances(X[None])[0] > target:
            X, taken = W @ X, taken + 1
    return taken


CHANGING: dict[str, Topology] = {
    "random matchings": shipped("ring", 8, schedule="random-matchings"),
    "matcha": shipped("torus", 9, schedule={"name": "matcha", "budget": 0.5}),
    "one-peer exponential, one way": shipped("one_peer_exponential", 8),
    "Base-2": shipped("base_k", 7),
}


@pytest.mark.parametrize("topology", CHANGING.values(), ids=CHANGING)
def test_on_graphs_that_change_it_gossips_by_their_mean_matrix(topology: Topology) -> None:
    """The method's own turns are as they were, so a target that is never reached changes nothing."""
    of = DSGD(local=LOCAL)
    plain, idle = (run(algorithm, topology) for algorithm in (of, controlled(of, topology, 1e9)))
    assert plain.models.tobytes() == idle.models.tobytes()
    target = float(distances(plain.models).max()) / 8
    kept = run(controlled(of, topology, target), topology)
    assert (distances(kept.models) <= target).all()
    np.testing.assert_allclose(kept.models.mean(axis=1)[1], plain.models.mean(axis=1)[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("on", ["ring-9", "star-32", "torus-4x8", "social-32", "path-2"])
def test_the_bound_holds_and_is_reached(on: str) -> None:
    """By random models it is above the distance; along the second eigenvector it is the distance."""
    gossip, W = ExtraGossip.on(graph(on)), dense(graph(on))
    values, vectors = np.linalg.eigh(W)
    slow = np.outer(vectors[:, -2], np.arange(3))
    for X, tight in ((np.random.default_rng(0).standard_normal((len(W), 3)), False), (slow, True)):
        found = np.sqrt(np.trace(X.T @ (np.eye(len(W)) - W) @ X) / len(W) / (1 - gossip.second))
        exact = distances(X[None])[0]
        assert found >= exact * (1 - 1e-12)
        assert np.isclose(found, exact) or not tight
    assert gossip.hops == nx.diameter(graph(on).graph)
    assert gossip.rho == pytest.approx(max(values[-2], -values[0]))


def test_a_graph_that_no_gossip_brings_together_is_refused() -> None:
    apart = Topology.static("two pairs", nx.Graph([(0, 1), (2, 3)]), "metropolis")
    with pytest.raises(ConfigError, match="does not bring all nodes together"):
        controlled(DSGD(local=LOCAL), apart, 1.0)


def test_steps_to() -> None:
    assert [steps_to(1.0, bound, 0.5) for bound in (0.0, 1.0, 1.1, 2.0, 2.1, 1024.0)] == [0, 0, 1, 1, 2, 10]
    assert steps_to(1.0, math.nan, 0.5) == steps_to(1.0, math.inf, 0.5) == 0
    assert steps_to(0.0, 1.0, 0.5) > 90
    assert steps_to(1e-9, 1.0, 0.0) == 1
    for bound in np.geomspace(1.001, 1e5, 50):
        k = steps_to(1.0, bound, 0.97)
        assert bound * 0.97**k <= 1 < bound * 0.97 ** (k - 1) * (1 + 1e-12)


def test_where_the_most_steps_do_not_suffice_it_says_so() -> None:
    topology = graph("ring-16")
    state: Any = run(controlled(DSGD(local=LOCAL), topology, 1e-6, max_steps=2), topology).states[3]
    assert (state.extra_steps, state.short) == (2 * ROUNDS, ROUNDS)
    assert state.bound > 1e-6


def controlled_run(world: World, algorithm: Algorithm, topology: Topology, dtype: torch.dtype) -> Run:
    problem = Quadratics.draw(topology.nodes, noisy_rounds=9)
    driver = world.driver(topology, problem.gradient(world.rank, dtype), run=7, epoch=1, largest=0)
    try:
        return play(algorithm, driver, topology, torch.from_numpy(common_start(problem)).to(dtype), 9)
    finally:
        driver.close()


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("of", ["dsgd awc", "qg-dsgdm", "gradient-tracking"])
def test_real_ranks_give_the_same_bits(of: str, wire: str) -> None:
    topology, dtype = graph("path-4"), torch.float32
    algorithm = controlled(CONTROLLABLE[of], topology, 0.1, relative=True)
    problem = Quadratics.draw(4, noisy_rounds=9)
    starts = torch.from_numpy(common_start(problem)).to(dtype)
    simulated = simulate(algorithm, topology, problem.answers(dtype), starts, 9)
    runs = on_ranks(4, lambda world: controlled_run(world, algorithm, topology, dtype), wire=wire)
    for rank, ran in enumerate(runs):
        assert same(ran.states[rank], simulated.states[rank])
        assert ran.bytes_sent == {rank: simulated.bytes_sent[rank]}
    state: Any = simulated.states[0]
    assert state.extra_steps > 9


@every_method
def test_no_answer_is_kept_beyond_its_step(of: Algorithm) -> None:
    topology = graph("ring-8")
    problem, algorithm = Quadratics.draw(8, noisy_rounds=9), controlled(of, topology, 0.2, relative=True)
    clean, poisoned = (
        simulate(algorithm, topology, problem.answers(), common_start(problem), 9, poison=poison)
        for poison in (False, True)
    )
    assert all(same(clean.states[node], poisoned.states[node]) for node in clean.states)
    assert np.isfinite(clean.models).all()


def test_one_node_alone_is_the_method() -> None:
    """There is nobody to keep together with, and no graph to be told."""
    alone = Topology.static("alone", nx.empty_graph(1), "metropolis")
    of = QuasiGlobalMomentum(local=LOCAL)
    plain, wrapped = (run(algorithm, alone) for algorithm in (of, controlled(of, alone, 0.1)))
    assert plain.models.tobytes() == wrapped.models.tobytes()


def test_every_method_of_the_registry_is_controlled_or_refused_with_a_reason() -> None:
    made = {type(of) for of in CONTROLLABLE.values()}
    for name, kind in ALGORITHMS.items():
        assert (kind in made) or name in WHY_NOT, name
        if kind not in made:
            assert not kind.bears_gossip.fget(None), name  # type: ignore[attr-defined]
    for of in CONTROLLABLE.values():
        assert controllable(of, "it") is of


REFUSED: Sequence[tuple[Algorithm | None, str, str]] = (
    (DSGD(local=LOCAL, compression="bf16"), "dsgd", "what it sends is compressed"),
    (SlowMo(local=LOCAL, average="none"), "slowmo", "average: none"),
    (None, "ddp", "centralized"),
    (ALGORITHMS["d2"](local=LOCAL), "d2", "would be missing from it"),
    (replace(CONTROLLABLE["dsgd"], compression="fp16"), "own:Code", "bears_gossip"),  # type: ignore[call-arg]
)


@pytest.mark.parametrize(("method", "name", "told"), REFUSED)
def test_others_are_refused(method: Algorithm | None, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"consensus-control cannot control {name}: .*{told}"):
        controllable(method, name)


def test_what_the_method_needs_of_the_graph_is_still_needed() -> None:
    decentlam = ConsensusControl(local=LOCAL, of=DecentLaM(local=LOCAL), target=1.0)
    with pytest.raises(ConfigError, match="DecentLaM needs one that is symmetric"):
        decentlam.suited(shipped("one_peer_exponential", 8))
    with pytest.raises(ConfigError, match=r"phases that start at \[5, 5\]"):
        ConsensusControl(local=LOCAL, of=DSGD(local=LOCAL), target=1.0, phases=[(5, None), (5, 1.0)])
