"""Run one prepared method at one seed: on real processes, or in the lockstep simulator."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decentral.algorithms.tokens import TokenMethod
from decentral.config import Experiment
from decentral.errors import (
    ConfigError,
    DecentralError,
    DivergedError,
    LostMeetingError,
    LostNeighborError,
    PreemptedError,
)
from decentral.fused import warm_up
from decentral.measure.census import census_of
from decentral.measure.cutting import cutting
from decentral.measure.evaluation import Evaluator, Observe
from decentral.measure.prepared import Prepared, is_own, refuse_unfit_ranks, refuse_unsimulated
from decentral.measure.recording import Tracing, recording
from decentral.measure.saving import Keeping, saving
from decentral.measure.straggling import cpu_share_of
from decentral.measure.virtual import event_log, simulator, virtual_time
from decentral.timeline import Timeline
from decentral.training.cpu_share import cpu_share
from decentral.training.cuts import course_of
from decentral.training.ddp import train_ddp
from decentral.training.free_running import train_freely
from decentral.training.loop import Measure, train
from decentral.training.objective import Objective
from decentral.training.traced import TracedGradient, traced_ddp, traced_local
from decentral.transport.driver import Driver, GradientAt, all_reduce_bytes
from decentral.transport.rank import RankDriver
from decentral.transport.traced import TracedDriver
from decentral.transport.world import World
from decentral.user_code import blame

_BESIDE_BYTES = 1 << 12
"""What a push has beside a model: its header, and weights."""


def simulate(
    prepared: Prepared, observe: Observe, keeping: Keeping | None = None, folder: Path | None = None
) -> dict[int, nn.Module]:
    """Run in the lockstep simulator, or the clock's; the trained module of each node.

    Args:
        keeping: how the run is checkpointed, and where it begins; from the beginning without checkpoints unless given.
        folder: of the run, for its event log where the clock asks for one.

    Raises:
        ConfigError: DDP, which runs on real processes only.
        DivergedError: a loss is not finite.
        PreemptedError: SIGTERM ended the run.
    """
    refuse_unsimulated(prepared)
    objectives = {node: prepared.training.objective(node) for node in range(prepared.nodes)}
    assert prepared.algorithm is not None
    gradients, clock = [each.gradient for each in objectives.values()], prepared.clock
    saved = keeping.saved if keeping and prepared.algorithm.free_running else None
    goes_on = saved is not None and course_of(saved[0]).clock is not None
    with event_log(clock, folder, prepared.nodes, goes_on=goes_on) as log:
        if clock is None:
            driver = simulator(gradients, prepared.algorithm, None)
        else:
            time = virtual_time(clock, prepared.nodes, prepared.task.seed, prepared.folder, log)
            driver = simulator(gradients, prepared.algorithm, time, clock.starving)
        return _trained(prepared, driver, objectives, observe, keeping)


def run_on(
    world: World,
    prepared: Prepared,
    epoch: int,
    run: int,
    observe: Observe,
    keeping: Keeping | None = None,
    tracing: Tracing | None = None,
    regret: Callable[[str], None] | None = None,
) -> dict[int, nn.Module]:
    """Run this process's node of a method on real processes; its trained module, by node.

    Args:
        epoch: number of the run in this job; no two runs of a job share one.
        run: 64-bit digest of the experiment.
        keeping: how the run is checkpointed, and where it begins; from the beginning without checkpoints unless given.
        tracing: where the run's timeline is written, if it has one; the models are the same.
        regret: called with the line that says that nothing is measured any more, where the run survives that.

    Raises:
        DivergedError: a loss is not finite, here or at another node.
        LostNeighborError: a neighbor died or stayed silent.
        PreemptedError: SIGTERM ended the run.
    """
    refuse_unfit_ranks(prepared, world.transport)
    task = prepared.task
    with recording(world, epoch, tracing, prepared.label, task.seed) if tracing else nullcontext() as timeline:
        return _run_on(world, prepared, epoch, run, observe, keeping, timeline, regret)


def _run_on(
    world: World,
    prepared: Prepared,
    epoch: int,
    run: int,
    observe: Observe,
    keeping: Keeping | None,
    timeline: Timeline | None,
    regret: Callable[[str], None] | None,
) -> dict[int, nn.Module]:
    if world.agree(f"data/{epoch}", str(prepared.task.fingerprint)) != str(prepared.task.fingerprint):
        raise ConfigError(
            f"node {world.rank} loaded other samples than node 0; data must be the same on all: seed what it draws"
        )
    driver, objective = _driver_and_objective(world, prepared, epoch, run, timeline)
    try:
        if prepared.algorithm is None:
            with limited(prepared, world.rank):
                return _trained_by_ddp(world, prepared, driver, epoch, observe, timeline)
        if timeline is not None:
            local = traced_local(prepared.local, timeline)
            prepared = replace(prepared, algorithm=replace(prepared.algorithm, local=local))
        with limited(prepared, world.rank):
            return _trained(prepared, driver, {world.rank: objective}, observe, keeping, world, epoch, timeline, regret)
    except PreemptedError:
        raise
    except DecentralError as error:
        world.report(epoch, error)
        raise _with_first_cause(error, world.first_fault(epoch)) from error
    except Exception as error:
        world.report(epoch, DecentralError(f"node {world.rank} failed: {blame(error)}"))
        raise
    finally:
        driver.close()


def _driver_and_objective(
    world: World, prepared: Prepared, epoch: int, run: int, timeline: Timeline | None
) -> tuple[Driver, Objective]:
    if timeline is None:
        objective = prepared.training.objective(world.rank)
        return driver_of(world, prepared, slowed(prepared, world.rank, objective.gradient), run, epoch), objective
    gradient = TracedGradient(prepared.training, world.rank, timeline)
    driver = driver_of(world, prepared, slowed(prepared, world.rank, gradient), run, epoch, timeline)
    return TracedDriver(driver, timeline), gradient.objective


def slowed(prepared: Prepared, node: int, gradient: GradientAt) -> GradientAt:
    """A node's gradients, slower where the experiment makes it a straggler."""
    straggling = prepared.straggling(node)
    return gradient if straggling is None else straggling.gradient(gradient)


def limited(prepared: Prepared, node: int) -> AbstractContextManager[None]:
    """Within it this process gets the share of a core that the experiment gives the node."""
    share = cpu_share_of(prepared.stragglers, node)
    if share is None:
        return nullcontext()
    for dtype in {prepared.task.dtype, torch.float64}:  # compiling is no part of the run
        warm_up(dtype)
    return cpu_share(share)


def driver_of(
    world: World, prepared: Prepared, gradient: GradientAt, run: int, epoch: int, timeline: Timeline | None = None
) -> RankDriver:
    """The driver of this process's node for one run."""
    largest = _largest_frame(prepared, world.rank)
    waits = prepared.algorithm is None or not prepared.algorithm.free_running
    pushed = 0 if waits else prepared.meta().nbytes + _BESIDE_BYTES
    return world.driver(prepared.topology, gradient, run, epoch, largest, timeline, waits, pushed)


def _largest_frame(prepared: Prepared, node: int) -> int:
    """Bytes of the largest message that a node will exchange; 0 if there is none, or that cannot be known."""
    if prepared.topology is None or prepared.algorithm is None or isinstance(prepared.algorithm, TokenMethod):
        return 0
    if prepared.algorithm.free_running:  # whoever reads its links posts receives as they are needed
        return 0
    try:
        return prepared.dry_run(node).largest_frame
    except (RuntimeError, TypeError, ValueError):
        if is_own(prepared.method):  # it may need numbers, which a dry run has not
            return 0
        raise


def _trained(
    prepared: Prepared,
    driver: Driver,
    objectives: Mapping[int, Objective],
    observe: Observe,
    keeping: Keeping | None,
    world: World | None = None,
    epoch: int = 0,
    timeline: Timeline | None = None,
    regret: Callable[[str], None] | None = None,
) -> dict[int, nn.Module]:
    assert prepared.algorithm is not None
    peers = {node: prepared.peer(node) for node in objectives}
    modules = {node: objective.module for node, objective in objectives.items()}
    evaluate: Measure = Evaluator(prepared.task, driver, modules, observe, prepared.diagnostics, prepared.topology)
    if timeline is not None:
        evaluate = timeline.timed("evaluate", evaluate)
    if world is not None and world.transport.survive:
        evaluate = _while_agreed(evaluate, driver, regret)
    start = prepared.task.start()
    saved = keeping.saved if keeping else None
    if prepared.algorithm.free_running:
        with cutting(keeping, driver.hosted, world, epoch) as cuts:
            algorithm, pace = prepared.algorithm, prepared.pace
            models = train_freely(algorithm, driver, peers, objectives, start, pace, evaluate, cuts, saved)
        return {node: objectives[node].module_at(x) for node, x in models.items()}
    with saving(keeping, driver.hosted, world, epoch) as boundary:
        algorithm, pace = prepared.algorithm, prepared.pace
        census = census_of(algorithm, driver, peers)
        models = train(algorithm, driver, peers, objectives, start, pace, evaluate, boundary, saved, census)
    return {node: objectives[node].module_at(x) for node, x in models.items()}


def _while_agreed(evaluate: Measure, driver: Driver, regret: Callable[[str], None] | None) -> Measure:
    """Evaluations until the store is lost in which nodes agree; training goes on without them."""
    over = False

    def measure(*of: Any, **named: Any) -> None:
        nonlocal over
        if over:
            return
        try:
            evaluate(*of, **named)
        except LostMeetingError as error:
            over = True
            if regret and driver.hosted[0] == next((node for node in driver.living if node), None):  # node 0 kept it
                regret(str(error))

    return measure


def _trained_by_ddp(
    world: World, prepared: Prepared, driver: Driver, epoch: int, observe: Observe, timeline: Timeline | None
) -> dict[int, nn.Module]:
    module, node = prepared.task.module(), world.rank
    task, local = prepared.task, prepared.local
    evaluate: Measure = Evaluator(task, driver, {node: module}, observe, prepared.diagnostics)
    if timeline is not None:
        evaluate = timeline.timed("evaluate", evaluate)
        task, local = traced_ddp(task, local, module, timeline)
    gradient_bytes = all_reduce_bytes(prepared.task.start(), world.size)

    def measure(round: int, *of: Any) -> None:
        driver.bytes_sent[node] = round * gradient_bytes
        evaluate(round, *of)

    train_ddp(module, task, local, world, epoch, prepared.pace, measure, prepared.straggling(node))
    return {node: module}


def _with_first_cause(error: DecentralError, first: tuple[int, str] | None) -> DecentralError:
    """A lost neighbor is often the echo of a fault elsewhere: say which."""
    if first is None or first[1] == str(error):
        return error
    if not isinstance(error, LostNeighborError):
        error.echo = first[0] == error.exit_code
        return error
    code, text = first
    if code == LostNeighborError.exit_code:
        return LostNeighborError(f"{error}; before that: {text}")
    cause = DivergedError(text) if code == DivergedError.exit_code else DecentralError(text)
    cause.exit_code, cause.echo = code, True
    return cause


def digest(experiment: Experiment) -> int:
    """64 bits of the experiment: ranks with another one are refused, and so are their frames."""
    return int.from_bytes(sha256(experiment.model_dump_json().encode()).digest()[:8], "little")
