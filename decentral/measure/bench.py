"""Time of one step, method beside method: bare computation, DDP and gossip, interleaved on the same ranks.

In each repetition every subject takes one step in turn, all ranks beginning together; a step's time is the slowest
rank's, and its last communication is waited for. So a drift of the machine falls on all subjects alike.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from decentral.algorithms.dsgd import DSGD
from decentral.config import Experiment
from decentral.measure.record import network, versions
from decentral.measure.run import Prepared, digest, driver_of, prepare_all
from decentral.methods import methods
from decentral.peer import LossAndGradient
from decentral.training.ddp import ddp_group
from decentral.transport.world import World

WARMUP = 5
BARE = "bare computation"
NEVER = 2**31

Step = Callable[[int], object]
"""Takes one step; the argument is its round."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds per step of one subject, and its ratios to what it is measured against."""

    name: str
    median_ms: float
    min_ms: float
    max_ms: float
    over_bare: float  # median step over the bare step's
    over_ddp: float | None  # median step over DDP's
    overhead_ms: float  # what communication and its bookkeeping add to the bare step


def bench_step(world: World, experiment: Experiment, repetitions: int) -> dict[str, object]:
    """Time every method of an experiment beside the bare computation, as one of the ranks.

    Returns:
        A document: the machine, the set-up and one `Timing` per subject.
    """
    ready = prepare_all(experiment, methods(experiment), experiment.seeds[0])
    with ExitStack() as stack:
        pace = stack.enter_context(closing(world.driver(None, _no_gradient, digest(experiment), 0)))
        subjects = {BARE: _gossip(stack, world, _bare(ready[0]), 1, digest(experiment))}
        for epoch, method in enumerate(ready, start=2):
            build = _gossip if method.algorithm else _ddp
            subjects[method.label] = build(stack, world, method, epoch, digest(experiment))
        times: dict[str, list[float]] = {name: [] for name in subjects}
        for repetition in range(WARMUP + repetitions):
            turned = repetition % len(subjects)
            for name, step in [*subjects.items()][turned:] + [*subjects.items()][:turned]:
                pace.gather({world.rank: [0.0]})
                began = perf_counter()
                step(repetition)
                everyone = pace.gather({world.rank: [perf_counter() - began]})
                times[name].append(max(seconds for (seconds,) in everyone))
    measured = {name: [1e3 * seconds for seconds in values[WARMUP:]] for name, values in times.items()}
    ddp = next((method.label for method in ready if method.algorithm is None), None)
    return {
        "nodes": experiment.nodes,
        "parameters": ready[0].task.parameters,
        "batch_size": experiment.batch_size,
        "repetitions": repetitions,
        "versions": versions(),
        "network": None if (lab := network()) is None else lab.model_dump(),
        "subjects": [vars(timing) for timing in timings(measured, ddp)],
    }


def timings(measured: Mapping[str, list[float]], ddp: str | None) -> list[Timing]:
    """Medians and ratios from each subject's milliseconds; BARE is among them."""
    middle = {name: median(values) for name, values in measured.items()}
    return [
        Timing(
            name=name,
            median_ms=middle[name],
            min_ms=min(values),
            max_ms=max(values),
            over_bare=middle[name] / middle[BARE],
            over_ddp=middle[name] / middle[ddp] if ddp else None,
            overhead_ms=middle[name] - middle[BARE],
        )
        for name, values in measured.items()
    ]


def _no_gradient(_at: torch.Tensor) -> LossAndGradient:
    raise AssertionError("the driver that keeps the pace takes no steps")


def _bare(ready: Prepared) -> Prepared:
    """The same computation without any communication: local steps alone."""
    return replace(ready, algorithm=DSGD(local=ready.local, every=NEVER), topology=None)


def _gossip(stack: ExitStack, world: World, ready: Prepared, epoch: int, run: int) -> Step:
    node, objective = world.rank, ready.task.objective(world.rank)
    driver = stack.enter_context(closing(driver_of(world, ready, objective.gradient, run, epoch)))
    peer, algorithm = ready.peer(node), ready.algorithm
    assert algorithm is not None
    state = algorithm.init(ready.task.start(), peer)

    def step(round: int) -> None:
        peer.round = round
        objective.begin_step()
        driver.advance({node: algorithm.step(state, peer)}, round)

    return step


def _ddp(stack: ExitStack, world: World, ready: Prepared, epoch: int, _run: int) -> Step:
    batches, loss_of = ready.task.batches(world.rank), ready.task.data.loss
    if not dist.is_initialized():
        stack.enter_context(ddp_group(world, epoch))
    model = DistributedDataParallel(ready.task.module())
    optimizer = ready.local.factory(model.parameters(), **ready.local.options)

    def step(_round: int) -> None:
        inputs, targets = batches.next()
        optimizer.zero_grad()
        loss_of(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
