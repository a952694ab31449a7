"""The common battery: whoever enters ALGORITHMS enters CASES and is held to the same contract."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decentral.algorithms import ALGORITHMS
from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.local import LocalOptimizer
from decentral.peer import Layout, LossAndGradient, Peer
from decentral.topology.groups import members
from decentral.topology.topology import Topology
from decentral.transport.dry import DryNode
from decentral.transport.lockstep import LockstepDriver
from decentral.transport.world import World
from tests.contract import oracle
from tests.contract.problems import DIMENSION, LAYOUTS, Quadratics, alone, dense, graph
from tests.contract.ranks import WIRES, on_ranks
from tests.contract.runs import Recorder, Run, kept, play, same, sgd, simulate

Bytes = Callable[[int, int, int, int], int]
"""bytes(rounds, degree, nodes, bytes of the flat vector): what a node sends in all."""


def gossip_bytes(rounds: int, degree: int, nodes: int, size: int, every: int = 1) -> int:
    """One vector to each neighbor in each mixing round: a header of 64 bytes, and the vector in whole 8 bytes."""
    return rounds // every * degree * (64 + (size + 7) // 8 * 8)


def ring_all_reduce_bytes(rounds: int, degree: int, nodes: int, size: int) -> int:
    return rounds * round(2 * (nodes - 1) / nodes * size)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to set an algorithm up, and what it must do.

    Attributes:
        equations: its oracle.
        bytes_sent: its formula.
        settings: of the algorithm.
        tolerance: between transports; None for bitwise, where no engine owns the order of a sum.
        size: nodes of each group, where the graph is one of groups.
    """

    equations: oracle.Equations
    bytes_sent: Bytes
    settings: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float | None = None
    size: int = 1

    def on(self, graph: Topology) -> Topology:
        """The graph of the nodes, from the experiment's graph."""
        linked = 1 if self.settings.get("between") == "leaders" else self.size
        return members(graph, self.size, linked) if self.size > 1 else graph


def hierarchical(order: str, between: str, size: int, every: int = 1) -> Case:
    def bytes_sent(rounds: int, degree: int, nodes: int, vector: int) -> int:
        numbers = DIMENSION if between != "slices" else -(-DIMENSION // size)
        inside = round(2 * (size - 1) / size * vector)
        spread = inside * (rounds // every) if between != "ranks" else 0
        return gossip_bytes(rounds, degree, nodes, vector // DIMENSION * numbers, every) + rounds * inside + spread

    equations = oracle.hierarchical(getattr(oracle, order.replace("-", "_")), size)
    settings = {"order": order, "between": between, "group": size, "every": every}
    return Case(
        settings=settings,
        equations=partial(equations, every=every),
        bytes_sent=bytes_sent,
        tolerance=None if size == 2 else 1e-6,  # the sum of two is the same in either order
        size=size,
    )


def dsgd(order: str, every: int) -> Case:
    equations = getattr(oracle, order.replace("-", "_"))
    return Case(
        settings={"order": order, "every": every},
        equations=partial(equations, every=every),
        bytes_sent=partial(gossip_bytes, every=every),
    )


CASES: dict[str, dict[str, Case]] = {
    "dsgd": {
        "atc": dsgd("adapt-then-combine", every=1),
        "atc every 3": dsgd("adapt-then-combine", every=3),
        "cta": dsgd("combine-then-adapt", every=1),
        "cta every 3": dsgd("combine-then-adapt", every=3),
        "awc": dsgd("adapt-while-communicate", every=1),
        "awc every 3": dsgd("adapt-while-communicate", every=3),
    },
    "hierarchical": {
        "leaders": hierarchical("adapt-then-combine", "leaders", size=2),
        "leaders of 3 cta every 3": hierarchical("combine-then-adapt", "leaders", size=3, every=3),
        "leaders awc": hierarchical("adapt-while-communicate", "leaders", size=2),
        "ranks": hierarchical("adapt-then-combine", "ranks", size=2),
        "ranks awc every 3": hierarchical("adapt-while-communicate", "ranks", size=2, every=3),
        "slices": hierarchical("adapt-then-combine", "slices", size=2),
        "slices of 3 cta": hierarchical("combine-then-adapt", "slices", size=3),
        "slices of 5 awc every 3": hierarchical("adapt-while-communicate", "slices", size=5, every=3),
    },
    "allreduce": {
        "": Case(equations=oracle.allreduce, bytes_sent=ring_all_reduce_bytes, tolerance=1e-6),
    },
}

ALL = [pytest.param(name, case, id=f"{name} {label}") for name, cases in CASES.items() for label, case in cases.items()]
every_case = pytest.mark.parametrize(("name", "case"), ALL)
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)

DECAYING_MOMENTUM = {"momentum": 0.9, "weight_decay": 0.1}
OPTIMIZERS = {
    "plain": sgd(0.05),
    "momentum": sgd(0.02, **DECAYING_MOMENTUM),
    "nesterov": sgd(0.02, nesterov=True, **DECAYING_MOMENTUM),
    "adamw": LocalOptimizer(torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
}
every_optimizer = pytest.mark.parametrize("local", OPTIMIZERS.values(), ids=OPTIMIZERS)


def built(name: str, case: Case, local: LocalOptimizer) -> Algorithm:
    return ALGORITHMS[name](local=local, **case.settings)


def built_alone(name: str, case: Case, local: LocalOptimizer) -> Algorithm:
    """For one node, which is a group by itself."""
    return ALGORITHMS[name](local=local, **{**case.settings, **({"group": 1} if case.size > 1 else {})})


def common_start(problem: Quadratics) -> oracle.Matrix:
    """All rows equal, as a run begins."""
    return np.repeat(problem.starts()[:1], problem.nodes, axis=0)


def test_every_algorithm_is_tested() -> None:
    assert CASES.keys() == ALGORITHMS.keys()


@pytest.mark.parametrize(
    ("on", "options"),
    [
        ("ring-9", {}),
        ("ring-9", DECAYING_MOMENTUM),
        ("star-32", DECAYING_MOMENTUM),
        ("tree-31", DECAYING_MOMENTUM),
        ("torus-4x8", DECAYING_MOMENTUM),
        ("social-32", DECAYING_MOMENTUM),
    ],
    ids=["ring-9 plain", "ring-9", "star-32", "tree-31", "torus-4x8", "social-32"],
)
@every_case
def test_it_computes_its_equations(name: str, case: Case, on: str, options: dict[str, float]) -> None:
    topology, rounds, lr = case.on(graph(on)), 50, 0.02
    problem = Quadratics.draw(topology.nodes, noisy_rounds=rounds)
    start = common_start(problem)
    run = simulate(built(name, case, sgd(lr, **options)), topology, problem.answers(), start, rounds)
    expected = case.equations(start, dense(graph(on)), problem.gradients(), oracle.Sgd(lr=lr, **options), rounds)
    np.testing.assert_allclose(run.final, expected, rtol=0, atol=1e-10 if case.size == 1 else 1e-12)


@every_optimizer
@every_case
def test_no_answer_is_kept_beyond_its_step(name: str, case: Case, local: LocalOptimizer) -> None:
    """Drivers use the memory of gradients and received payloads again: a State that holds an alias would change."""
    topology = case.on(graph("ring-8"))
    problem = Quadratics.draw(topology.nodes, noisy_rounds=9)
    clean, poisoned = (
        simulate(
            built(name, case, local),
            topology,
            problem.answers(),
            common_start(problem),
            9,
            layout=LAYOUTS["many blocks"],
            poison=poison,
        )
        for poison in (False, True)
    )
    assert all(same(clean.states[node], poisoned.states[node]) for node in clean.states)
    assert np.isfinite(clean.models).all()


@every_case
def test_it_is_deterministic(name: str, case: Case) -> None:
    topology = case.on(graph("tree-31"))
    problem = Quadratics.draw(topology.nodes, noisy_rounds=9)
    algorithm, start = built(name, case, OPTIMIZERS["momentum"]), common_start(problem)
    one, other = (simulate(algorithm, topology, problem.answers(), start, 9) for _ in range(2))
    assert all(same(one.states[node], other.states[node]) for node in one.states)
    assert one.models.tobytes() == other.models.tobytes()


@every_case
def test_the_flat_vector_stays_the_same_tensor(name: str, case: Case) -> None:
    """The loop, the model's parameters and the optimizer hold views of x: a step that puts another in its place would
    go on training what nobody looks at."""
    problem = Quadratics.draw(1)
    x = torch.from_numpy(problem.starts()[0])
    algorithm = built_alone(name, case, OPTIMIZERS["momentum"])
    peer = Peer(0, 1, lambda turn: alone(1).row(0), LAYOUTS["many blocks"])
    state, driver = algorithm.init(x, peer), LockstepDriver(problem.answers())
    for peer.round in range(4):
        before = x.clone()
        driver.advance({0: algorithm.step(state, peer)}, peer.round)
        assert state.x is x
        assert not torch.equal(x, before)


ROUNDS = 7


def few(case: Case) -> Topology:
    """Four nodes on a path, or as many as two groups have."""
    return graph("path-4") if case.size == 1 else case.on(graph("path-2"))


def simulate_few(case: Case, algorithm: Algorithm, dtype: torch.dtype, layout: Layout) -> Run:
    """Some rounds of a few nodes, in lockstep."""
    topology = few(case)
    problem = Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS)
    starts = torch.from_numpy(common_start(problem)).to(dtype)
    return simulate(algorithm, topology, problem.answers(dtype), starts, ROUNDS, layout=layout)


def run_one(world: World, case: Case, algorithm: Algorithm, dtype: torch.dtype, layout: Layout, epoch: int = 1) -> Run:
    """The same rounds of the node of one rank, over its links."""
    topology = few(case)
    problem = Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS)
    starts = torch.from_numpy(common_start(problem)).to(dtype)
    largest = 64 + (starts[0].nbytes + 7) // 8 * 8
    driver = world.driver(topology, problem.gradient(world.rank, dtype), run=7, epoch=epoch, largest=largest)
    try:
        return play(algorithm, driver, topology, starts, ROUNDS, layout)
    finally:
        driver.close()


@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("local", [OPTIMIZERS["momentum"], OPTIMIZERS["adamw"]], ids=["momentum", "adamw"])
@pytest.mark.parametrize("wire", WIRES)
@every_case
def test_real_ranks_give_the_same_bits(
    name: str, case: Case, wire: str, local: LocalOptimizer, dtype: torch.dtype, layout: Layout
) -> None:
    algorithm = built(name, case, local)
    simulated = simulate_few(case, algorithm, dtype, layout)
    runs = on_ranks(few(case).nodes, lambda world: run_one(world, case, algorithm, dtype, layout), wire=wire)
    for rank, run in enumerate(runs):
        assert same(run.states[rank], simulated.states[rank], case.tolerance)
        assert run.bytes_sent == {rank: simulated.bytes_sent[rank]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("on", ["path-4", "star-32"])
@every_case
def test_bytes_are_known_before_the_run(name: str, case: Case, on: str, dtype: torch.dtype) -> None:
    """Lockstep, a dry run and the formula agree; that ranks send as much as lockstep is asserted where ranks run."""
    topology, rounds = case.on(graph(on)), 8
    problem = Quadratics.draw(topology.nodes)
    algorithm, starts = built(name, case, OPTIMIZERS["momentum"]), torch.from_numpy(common_start(problem)).to(dtype)
    run = simulate(algorithm, topology, problem.answers(dtype), starts, rounds)
    for node in range(topology.nodes):
        degree, size = len(topology.neighbors(node)), DIMENSION * dtype.itemsize
        formula = case.bytes_sent(rounds, degree, topology.nodes, size)
        assert (run.bytes_sent[node], dry_bytes(algorithm, topology, node, rounds, dtype)) == (formula, formula)


def dry_bytes(algorithm: Algorithm, topology: Topology, node: int, rounds: int, dtype: torch.dtype) -> int:
    dry = DryNode(topology.nodes)
    peer = Peer(node, topology.nodes, partial(topology.row, node), LAYOUTS["one block"])
    state = algorithm.init(torch.empty(DIMENSION, dtype=dtype, device="meta"), peer)
    for peer.round in range(rounds):
        dry.advance(algorithm.step(state, peer))
    return dry.bytes_sent


@every_case
def test_payloads_have_the_same_shapes_in_every_round(name: str, case: Case) -> None:
    """Receivers allocate before the run, and what the sender's frame holds is checked against the receiver's own."""
    topology = case.on(graph("tree-31"))
    problem = Quadratics.draw(topology.nodes)
    run = simulate(built(name, case, OPTIMIZERS["momentum"]), topology, problem.answers(), common_start(problem), 7)
    for posted in run.posted:
        assert len({str(shapes) for shapes in posted.values()}) == 1
    assert len({str(posted) for posted in run.posted if any(posted.values())}) <= 1


@every_optimizer
@every_layout
@every_case
def test_one_node_alone_is_plain_torch(name: str, case: Case, layout: Layout, local: LocalOptimizer) -> None:
    problem, rounds = Quadratics.draw(1, noisy_rounds=20), 20
    run = simulate(built_alone(name, case, local), alone(1), problem.answers(), problem.starts(), rounds, layout=layout)
    expected, optimizer_state = trained_by_torch(problem, layout, local, rounds)
    assert torch.equal(run.states[0].x, expected)
    local_state = kept(run.states[0].local)
    assert local_state.keys() == optimizer_state.keys()
    assert all(
        torch.equal(torch.as_tensor(local_state[key]), torch.as_tensor(optimizer_state[key])) for key in local_state
    )


def trained_by_torch(
    problem: Quadratics, layout: Layout, local: LocalOptimizer, rounds: int
) -> tuple[Tensor, dict[str, Any]]:
    """The parameters, put together, and the optimizer's state after an ordinary torch loop over separate tensors."""
    start, gradient = torch.from_numpy(problem.starts()[0]), problem.gradient(0)
    parameters = [torch.nn.Parameter(block.of(start).clone()) for block in layout]
    optimizer = local.factory(parameters, **local.options)
    for _ in range(rounds):
        answer: LossAndGradient = gradient(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
        for parameter, block in zip(parameters, layout, strict=True):
            parameter.grad = block.of(answer.gradient).clone()
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in parameters]), kept(optimizer.state_dict()["state"])


@pytest.mark.parametrize("lr", [0.05, 1e4], ids=["converging", "diverging"])
@pytest.mark.parametrize("on", ["ring-8", "tree-31"])
@every_case
def test_the_mean_moves_by_the_mean_gradient(name: str, case: Case, on: str, lr: float) -> None:
    """Gossip keeps the mean, so in each round it moves by exactly -lr mean(g), to rounding, even on the way to 1e60."""
    topology, rounds = case.on(graph(on)), 20
    problem = Quadratics.draw(topology.nodes, noisy_rounds=rounds)
    recorders = [Recorder.of(gradient) for gradient in problem.answers()]
    run = simulate(built(name, case, sgd(lr)), topology, recorders, common_start(problem), rounds)
    grads = np.stack([torch.stack(recorder.answers).numpy() for recorder in recorders], axis=1)
    means = run.models.mean(axis=1)
    error = np.abs(means[1:] - (means[:-1] - lr * grads.mean(axis=1))).max(axis=1)
    scale = np.maximum(np.abs(run.models[:-1]).max(axis=(1, 2)), lr * np.abs(grads).max(axis=(1, 2)))
    assert (error <= 1e-12 * scale).all()
    assert (scale[-1] > 1e60) == (lr == 1e4)
