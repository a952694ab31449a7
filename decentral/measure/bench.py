"""Time of one step, method beside method: bare computation, gossip, DDP and other peers, interleaved on the same ranks.

In each repetition every subject takes a few steps in turn, all ranks beginning together, each time in another order; a
step's time is the slowest rank's, and the last communication is waited for. So a drift of the machine falls on all
subjects alike, and what a method hides behind its next step is counted as hidden. The first steps of a turn are not
timed: TCP begins slowly on a connection that was idle while others had their turn, and in training none is.

Beside each measurement stands what the cost model makes of the bare step's time, the link and this machine's rates; in
the network lab, of what its links carry when all hosts send at once, which is tried first.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from statistics import median
from time import perf_counter

import networkx as nx
import torch

from decentral.algorithms.dsgd import DSGD
from decentral.config import Experiment
from decentral.measure.cost import Link, Machine, Setting
from decentral.measure.plan import bytes_per_round, predicted
from decentral.measure.prepared import Prepared, prepare_all
from decentral.measure.probes import this_machine
from decentral.measure.record import network, versions
from decentral.measure.rivals import RIVALS, Step, nothing
from decentral.measure.run import digest, driver_of
from decentral.methods import methods
from decentral.peer import LossAndGradient, Peer
from decentral.topology.topology import Topology
from decentral.training.consensus_step import ConsensusSteps
from decentral.training.ddp import ddp_group
from decentral.transport.driver import Driver, all_reduce_bytes
from decentral.transport.gpu import finish
from decentral.transport.world import World

WARMUP = 1
LEAD_IN = 2  # steps of a turn that are not timed
STEPS = 4
BARE = "bare computation"
NEVER = 2**31
CARRIED_BYTES, CARRIED_ROUNDS = 4 << 20, 7  # of the trial of the links


@dataclass(frozen=True)
class Timing:
    """Milliseconds per step of one subject, and its ratios to what it is measured against."""

    name: str
    median_ms: float
    min_ms: float
    max_ms: float
    efficiency: float  # the bare step's median over this one's
    over_bare: float  # median step over the bare step's
    over_ddp: float | None  # median step over DDP's
    overhead_ms: float  # what communication and its bookkeeping add to the bare step
    bytes_per_step: float | None  # that the busiest node sends, headers included; None where an outside engine knows
    predicted_ms: float | None = None  # by the cost model; None where it knows nothing of the subject or the network
    predicted_over_measured: float | None = None  # over the median


@dataclass(frozen=True)
class Subject:
    """What is timed."""

    step: Step
    finish: Callable[[], None] = nothing
    bytes_per_step: float | None = None


def bench_step(
    world: World, experiment: Experiment, repetitions: int, steps: int = STEPS, rivals: bool = True
) -> dict[str, object]:
    """Time every method of an experiment beside the bare computation, as one of the ranks.

    Args:
        repetitions: how often each subject's turn comes.
        steps: that it takes in a turn.
        rivals: whether to time RIVALS too, those that are installed.

    Returns:
        A document: the machine, the set-up and one `Timing` per subject.
    """
    ready = prepare_all(experiment, methods(experiment), experiment.seeds[0], ConsensusSteps(world))
    with ExitStack() as stack:
        ring = None if network() is None else Topology.static("ring", nx.cycle_graph(world.size), "metropolis")
        pace = stack.enter_context(closing(world.driver(ring, _no_gradient, digest(experiment), 0)))
        pace.gather({world.rank: [0.0]})
        machine = this_machine(world.size, experiment.threads, ready[0].meta().nbytes, alone=False)
        carried = None if ring is None else _carried_bytes_s(pace, world.rank, ring)
        subjects = _subjects(stack, world, ready, digest(experiment), rivals)
        measured = _interleaved(subjects, world, pace, repetitions, steps, ready[0].task.device)
    sent = {name: subject.bytes_per_step for name, subject in subjects.items()}
    ddp = next((method.label for method in ready if method.algorithm is None), None)
    setting = _setting(world, ready[0], machine, 1e-3 * median(measured[BARE]), carried)
    foretold = {} if setting is None else {method.label: predicted(method, setting) for method in ready}
    return {
        "nodes": experiment.nodes,
        "parameters": ready[0].task.parameters,
        "batch_size": experiment.batch_size,
        "repetitions": repetitions,
        "steps": steps,
        "transport": experiment.transport.name,
        "versions": versions(),
        "network": None if (lab := network()) is None else lab.model_dump(),
        "machine": asdict(machine),
        "carried_bytes_s": carried,
        "predictions": {label: asdict(prediction) for label, prediction in foretold.items()},
        "subjects": [
            vars(timing)
            for timing in timings(measured, ddp, sent, {label: 1e3 * cost.step_s for label, cost in foretold.items()})
        ],
    }


def _interleaved(
    subjects: Mapping[str, Subject], world: World, pace: Driver, repetitions: int, steps: int, device: torch.device
) -> dict[str, list[float]]:
    """The milliseconds of each subject's step, one number a turn: that of the slowest rank.

    Every repetition begins with another subject, so none always follows the same one.

    Args:
        pace: a driver by which the ranks begin together and tell their times.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for repetition in range(WARMUP + repetitions):
        turned = repetition % len(subjects)
        for name, subject in [*subjects.items()][turned:] + [*subjects.items()][:turned]:
            first = repetition * (LEAD_IN + steps)
            for step in range(first, first + LEAD_IN):
                subject.step(step)
            subject.finish()
            pace.gather({world.rank: [0.0]})
            began = perf_counter()
            for step in range(first + LEAD_IN, first + LEAD_IN + steps):
                subject.step(step)
            subject.finish()
            finish(device)
            everyone = pace.gather({world.rank: [(perf_counter() - began) / steps]})
            times[name].append(1e3 * max(seconds for (seconds,) in everyone))
    return {name: values[WARMUP:] for name, values in times.items()}


def _carried_bytes_s(driver: Driver, node: int, ring: Topology) -> float:
    """Bytes a second that each node sends while all send on a ring: a lab's hosts share cores, which may be too few."""
    peer = Peer(node, ring.nodes, lambda turn: ring.row(node, turn))
    frame = torch.zeros(CARRIED_BYTES, dtype=torch.uint8)

    async def exchange() -> torch.Tensor:
        await peer.exchange((frame,))
        return torch.zeros(())

    seconds = []
    for round in range(1 + CARRIED_ROUNDS):
        began = perf_counter()
        driver.advance({node: exchange()}, round)
        seconds.append(max(took for (took,) in driver.gather({node: [perf_counter() - began]})))
    return len(ring.neighbors(node)) * CARRIED_BYTES / median(seconds[1:])


def _setting(
    world: World, ready: Prepared, machine: Machine, compute_s: float, carried: float | None
) -> Setting | None:
    """What the prediction starts from; None where nobody knows the network between the hosts."""
    lab = network()
    if lab is None and not world.one_machine:
        return None
    link = None if lab is None else Link(lab.rate_bit_s, lab.latency_s or 0.0, carried)
    shares_memory = world.transport.name in ("auto", "shared-memory")
    return Setting(world.size, ready.meta().nbytes, compute_s, machine, link, shares_memory)


def _subjects(stack: ExitStack, world: World, ready: Sequence[Prepared], run: int, rivals: bool) -> dict[str, Subject]:
    subjects = {BARE: _gossip(stack, world, _bare(ready[0]), 1, run)}
    for epoch, method in enumerate(ready, start=2):
        if method.algorithm is not None:
            subjects[method.label] = _gossip(stack, world, method, epoch, run)
    outside = {method.label: "ddp" for method in ready if method.algorithm is None}
    if rivals:
        outside |= {name: name for name in RIVALS if not outside or name != "ddp"}
    if outside:
        stack.enter_context(ddp_group(world, 1))
    for label, name in outside.items():
        if not name.startswith("decent-dp") or find_spec("decent_dp") is not None:
            step, finish = RIVALS[name](ready[0], world.rank)
            reduced = all_reduce_bytes(ready[0].meta(), world.size)
            subjects[label] = Subject(step, finish, reduced if name.startswith("ddp") and "fp16" not in name else None)
    return subjects


def timings(
    measured: Mapping[str, list[float]],
    ddp: str | None,
    sent: Mapping[str, float | None] | None = None,
    predicted_ms: Mapping[str, float] | None = None,
) -> list[Timing]:
    """Medians and ratios from each subject's milliseconds; BARE is among them."""
    foretold = predicted_ms or {}
    middle = {name: median(values) for name, values in measured.items()}
    return [
        Timing(
            name=name,
            median_ms=middle[name],
            min_ms=min(values),
            max_ms=max(values),
            efficiency=middle[BARE] / middle[name],
            over_bare=middle[name] / middle[BARE],
            over_ddp=middle[name] / middle[ddp] if ddp else None,
            overhead_ms=middle[name] - middle[BARE],
            bytes_per_step=(sent or {}).get(name),
            predicted_ms=foretold.get(name),
            predicted_over_measured=foretold[name] / middle[name] if name in foretold else None,
        )
        for name, values in measured.items()
    ]


def _no_gradient(_at: torch.Tensor) -> LossAndGradient:
    raise AssertionError("the driver that keeps the pace takes no steps")


def _bare(ready: Prepared) -> Prepared:
    """The same computation without any communication: local steps alone."""
    return replace(ready, algorithm=DSGD(local=ready.local, every=NEVER), topology=None)


def _gossip(stack: ExitStack, world: World, ready: Prepared, epoch: int, run: int) -> Subject:
    node, objective = world.rank, ready.task.objective(world.rank)
    driver = stack.enter_context(closing(driver_of(world, ready, objective.gradient, run, epoch)))
    peer, algorithm = ready.peer(node), ready.algorithm
    assert algorithm is not None
    state = algorithm.init(ready.task.start(), peer)

    def step(round: int) -> None:
        peer.round = round
        objective.begin_step()
        driver.advance({node: algorithm.step(state, peer)}, round)
        driver.settle()

    return Subject(step, bytes_per_step=bytes_per_round(ready, ready.busiest))
