"""Compare methods: run each at each seed on the same processes, one after the other, and write one document.

The order is seed by seed, then method by method, each seed beginning one further on: a drift of speed falls on all.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from torch import nn

from decentral.config import DDP, Experiment
from decentral.errors import ConfigError, DivergedError
from decentral.measure.checkpoints import METRICS
from decentral.measure.comparison import DOCUMENT, Clock, Comparison, Evaluation, MethodResult, SeedResult
from decentral.measure.consensus_steps import kept_in
from decentral.measure.evaluation import Observe
from decentral.measure.holdings import holdings
from decentral.measure.pace import is_unequal, without_paces
from decentral.measure.prepared import Prepared, own_method, prepare_all, refuse_unsimulated
from decentral.measure.record import (
    Metrics,
    describe_run,
    folder_of,
    network,
    rows_in,
    save_model,
    summary_of,
    versions,
    write_json,
)
from decentral.measure.recording import Tracing
from decentral.measure.resume import Origin, checked, keeping, resumed
from decentral.measure.run import digest, run_on, simulate
from decentral.measure.saving import Keeping
from decentral.measure.summary import method_result, seed_result, topology_key, with_speedups
from decentral.measure.tuning import Chosen, Progress, tune
from decentral.measure.virtual import clock_of
from decentral.methods import ResolvedMethod, methods, untuned
from decentral.training.consensus_step import ConsensusSteps
from decentral.transport.world import World

Perform = Callable[[Observe], Mapping[int, nn.Module]]
"""Performs one run, reporting its evaluations; returns the trained modules of the nodes of this process."""

Tell = Callable[[str], None] | None


def compare(
    world: World,
    experiment: Experiment,
    folder: Path,
    command: str,
    progress: Progress,
    trace_rounds: int | None = None,
    tell: Tell = None,
    tuning: bool = False,
) -> Comparison:
    """Run every method at every seed, as one of the ranks; rank 0 writes the document into the folder.

    A run that diverges is recorded as such, and the others go on.

    Args:
        command: what reproduces the comparison, for the report.
        trace_rounds: how many rounds of each run's timeline are kept; None: the runs have none.
        tell: called with a line about each consensus step that a method takes.
        tuning: whether each method's learning rate is first chosen from the experiment's grid.

    Raises:
        ConfigError: bad input, found before the first run of its seed.
        LostNeighborError: a rank died.
    """
    epochs = count()

    def perform(method: Prepared, place: Path) -> Perform:
        tracing = Tracing(place, trace_rounds) if trace_rounds else None
        return partial(run_on, world, method, next(epochs), digest(experiment), tracing=tracing)

    def trial(method: Prepared, observe: Observe) -> object:
        return run_on(world, method, next(epochs), digest(experiment), observe)

    steps, chosen = kept_in(folder, world, tell), Chosen(methods(experiment))
    if tuning:
        chosen = tune(experiment, methods(untuned(experiment)), folder, trial, steps, progress, world.agree)
    return _compared(experiment, chosen, perform, folder, command, "wall", progress, world.rank, steps)


def compare_simulated(
    experiment: Experiment,
    folder: Path,
    command: str,
    progress: Progress,
    tuning: bool = False,
    candidates: Sequence[ResolvedMethod] | None = None,
) -> Comparison:
    """Run every method but DDP at every seed in the lockstep simulator, and write the document into the folder.

    Args:
        tuning: whether each method's learning rate is first chosen from the experiment's grid.
        candidates: the methods; the experiment's unless given.

    Raises:
        ConfigError: bad input, found before the first run of its seed.
    """
    steps, clock, chosen = kept_in(folder), clock_of(experiment), Chosen(candidates or simulated(methods(experiment)))
    if tuning:
        chosen = tune(experiment, simulated(methods(untuned(experiment))), folder, simulate, steps, progress)

    def perform(method: Prepared, place: Path) -> Perform:
        return partial(simulate, method, folder=place)

    return _compared(experiment, chosen, perform, folder, command, clock, progress, rank=0, steps=steps)


def simulated(candidates: Sequence[ResolvedMethod]) -> list[ResolvedMethod]:
    """Those of some methods that have simulated nodes: DDP has none."""
    return [method for method in candidates if not isinstance(method.algorithm, DDP)]


def _compared(
    experiment: Experiment,
    chosen: Chosen,
    perform: Callable[[Prepared, Path], Perform],
    folder: Path,
    command: str,
    clock: Clock,
    progress: Progress,
    rank: int,
    steps: ConsensusSteps,
) -> Comparison:
    results: dict[str, list[SeedResult]] = {method.label: [] for method in chosen.methods}
    for turn, seed in enumerate(experiment.seeds):
        ready = prepare_all(experiment, chosen.methods, seed, steps)
        order = list(enumerate(ready))
        for index, method in order[turn % len(order) :] + order[: turn % len(order)]:
            name = f"{folder_of(index, method.label)}/seed-{seed}"
            result, _ = recorded(folder, name, experiment, method, perform(method, folder / name), progress)
            results[method.label].append(result)
    return written(folder, experiment, command, clock, ready, results, rank == 0, chosen)


def run_alone(
    world: World,
    experiment: Experiment,
    folder: Path,
    command: str,
    progress: Progress,
    origin: Origin | None = None,
    trace_rounds: int | None = None,
    tell: Tell = None,
    regret: Tell = None,
) -> Comparison:
    """Run the experiment's own method at its first seed, as one of the ranks.

    Args:
        origin: the checkpoint that all ranks go on from; from the beginning unless given.
        tell: called with a line about the consensus step that the method takes, if any.
        regret: called with the line that says that nothing is measured any more, where the run survives that.

    Raises:
        ConfigError: bad input.
        DivergedError: a loss is not finite; what was recorded until then stays.
        LostNeighborError: a rank died.
        PreemptedError: SIGTERM ended the run.
    """
    ready = own_method(experiment, kept_in(folder, world, tell))
    plan = keeping(folder, experiment, ready, "wall", command, origin)
    if plan and origin:
        _all_can_resume(world, origin, experiment, ready)
        plan = resumed(plan, origin, experiment, ready, [world.rank], command)
    tracing = Tracing(folder, trace_rounds) if trace_rounds else None
    perform = partial(run_on, world, ready, 0, digest(experiment), keeping=plan, tracing=tracing, regret=regret)
    return _alone(folder, experiment, command, "wall", ready, perform, progress, world.rank, plan)


def written_after(folder: Path, experiment: Experiment, command: str, ready: Prepared) -> Comparison:
    """The document of a run whose nodes are gone, written where the one that recorded died before it did."""
    rows, steps = rows_in(folder / METRICS), ready.steps_per_round
    result = seed_result(ready.task.seed, ".", rows, experiment.target, None, steps)
    return written(folder, experiment, command, "wall", [ready], {ready.label: [result]}, writes=True)


def _all_can_resume(world: World, origin: Origin, experiment: Experiment, ready: Prepared) -> None:
    """Each rank checks its own node's files; all are told what the first of them found wrong."""
    try:
        checked(origin, experiment, ready, [world.rank])
    except ConfigError as error:
        world.first_of("resume", str(error))
        raise
    if verdict := world.first_of("resume", ""):
        fault = ConfigError(verdict)
        fault.echo = True
        raise fault


def simulate_alone(
    ready: Prepared,
    experiment: Experiment,
    folder: Path,
    command: str,
    progress: Progress,
    origin: Origin | None = None,
) -> Comparison:
    """Run one method in the lockstep simulator.

    Args:
        origin: the checkpoint to go on from; from the beginning unless given.

    Raises:
        ConfigError: a method that runs on real processes only, or a checkpoint that cannot be resumed.
        DivergedError: a loss is not finite; what was recorded until then stays.
        PreemptedError: SIGTERM ended the run.
    """
    refuse_unsimulated(ready)
    plan = keeping(folder, experiment, ready, clock_of(experiment), command, origin)
    if plan and origin:
        checked(origin, experiment, ready, range(ready.nodes))
        plan = resumed(plan, origin, experiment, ready, range(ready.nodes), command)
    perform = partial(simulate, ready, keeping=plan, folder=folder)
    return _alone(folder, experiment, command, clock_of(experiment), ready, perform, progress, rank=0, plan=plan)


def _alone(
    folder: Path,
    experiment: Experiment,
    command: str,
    clock: Clock,
    ready: Prepared,
    perform: Perform,
    progress: Progress,
    rank: int,
    plan: Keeping | None,
) -> Comparison:
    earlier = plan.resumed.rows if plan and plan.resumed else ()
    clock = plan.manifest.clock if plan else clock
    metrics = Metrics(folder, earlier)
    result, diverged = recorded(folder, ".", experiment, ready, perform, progress, metrics)
    writes = rank == 0 or metrics.records
    document = written(folder, experiment, command, clock, [ready], {ready.label: [result]}, writes)
    if diverged is not None:
        raise diverged
    return document


def recorded(
    folder: Path,
    name: str,
    experiment: Experiment,
    ready: Prepared,
    perform: Perform,
    progress: Progress,
    metrics: Metrics | None = None,
) -> tuple[SeedResult, DivergedError | None]:
    """Perform one run and record it in `folder/name`.

    Description and metrics are written by the process of the first living node, models by all.

    Args:
        metrics: of the run; new ones unless given.
    """
    place, diverged = folder / name, None
    place.mkdir(parents=True, exist_ok=True)
    metrics = metrics or Metrics(place)

    def observe(row: Evaluation) -> None:
        if row.round == 0:
            describe_run(place, experiment, ready.method, ready.task.seed, ready.graph)
            write_json(place / "data.json", holdings(ready.task, experiment).model_dump(mode="json"))
        metrics(row)
        progress(f"{ready.label} seed {ready.task.seed}", row)

    try:
        for node, module in perform(observe).items():
            save_model(place, node, module)
    except DivergedError as error:
        diverged = error
    failure = str(diverged) if diverged else None
    steps = ready.steps_per_round
    return seed_result(ready.task.seed, name, metrics.rows, experiment.target, failure, steps), diverged


def written(
    folder: Path,
    experiment: Experiment,
    command: str,
    clock: Clock,
    ready: Sequence[Prepared],
    results: Mapping[str, Sequence[SeedResult]],
    writes: bool,
    chosen: Chosen | None = None,
) -> Comparison:
    """The document of some runs; of all ranks one writes it into the folder."""

    def runs_of(name: str) -> list[SeedResult]:
        rivals = [one.label for one in ready if one.method.baseline and one.method.algorithm.name == name]
        return [run for label in rivals for run in results[label]]

    def result(one: Prepared) -> MethodResult:
        runs = with_speedups(results[one.label], runs_of("allreduce"), runs_of("ddp"))
        runs = runs if clock != "none" else without_paces(runs)
        counts = one.algorithm.staleness_counts if one.algorithm else None
        steps, tuning = one.steps_per_round, tunings.get(one.label)
        return method_result(one.method, runs, one.consensus_step, tuning, steps, counts)

    graphs = {topology_key(one.method): one.graph for one in ready if one.graph is not None}
    first, tunings = ready[0].task, chosen.tunings if chosen else {}
    document = Comparison(
        experiment=experiment.name,
        command=command,
        clock=clock,
        nodes=experiment.nodes,
        rounds=experiment.rounds,
        seeds=sorted({run.seed for runs in results.values() for run in runs}),
        score="test_loss" if first.data.classes is None else "accuracy",
        target=experiment.target,
        parameters=first.parameters,
        versions={**versions(), **first.data.versions},
        network=network() if clock == "wall" else None,
        tuned=chosen and chosen.tuned,
        unequal=is_unequal(experiment, clock),
        topologies={key: summary_of(topology) for key, topology in graphs.items()},
        methods=[result(one) for one in ready],
    )
    if writes:
        write_json(folder / DOCUMENT, document.model_dump(mode="json"))
    return document
