"""Compare methods: run each at each seed on the same processes, one after the other, and write one document.

The order is seed by seed and, within a seed, method by method, so that a drift of the machine's speed falls on all.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from re import sub

from decentral.config import Experiment
from decentral.errors import DivergedError
from decentral.measure.comparison import Comparison, Evaluation, SeedResult
from decentral.measure.record import Metrics, describe_run, save_model, summary_of, versions, write_json
from decentral.measure.run import Prepared, digest, prepare_all, run_on
from decentral.measure.summary import method_result, seed_result, topology_key, with_speedups
from decentral.methods import methods
from decentral.transport.world import World

Progress = Callable[[str, int, Evaluation], None]
"""Called as progress(method, seed, evaluation)."""


def compare(world: World, experiment: Experiment, folder: Path, command: str, progress: Progress) -> None:
    """Run the whole comparison as one of its ranks; rank 0 writes `speedup.json` into the folder.

    A run that diverges is recorded as such, and the others go on.

    Args:
        command: what reproduces the comparison, for the report.

    Raises:
        ConfigError: bad input, found before the first run.
        LostNeighborError: a rank died.
    """
    candidates = methods(experiment)
    results: dict[str, list[SeedResult]] = {method.label: [] for method in candidates}
    epochs = count()
    for seed in experiment.seeds:
        ready = prepare_all(experiment, candidates, seed)
        for method in ready:
            result = _perform(world, experiment, method, folder, next(epochs), progress)
            results[method.label].append(result)
    if world.rank == 0:
        document = _comparison(experiment, command, ready, results)
        write_json(folder / "speedup.json", document.model_dump(mode="json"))


def _perform(
    world: World, experiment: Experiment, ready: Prepared, folder: Path, epoch: int, progress: Progress
) -> SeedResult:
    seed, failure = ready.task.seed, None
    name = f"{sub('[^A-Za-z0-9=.-]+', '-', ready.label)}/seed-{seed}"
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    if world.rank == 0:
        describe_run(place, experiment, ready.method, seed, ready.topology)
    metrics = Metrics(place)

    def observe(row: Evaluation) -> None:
        metrics(row)
        progress(ready.label, seed, row)

    try:
        model = run_on(world, ready, epoch, digest(experiment), observe)
        save_model(place, world.rank, model, ready.task)
    except DivergedError as error:
        failure = str(error)
    return seed_result(seed, name, metrics.rows, experiment.target, failure)


def _comparison(
    experiment: Experiment, command: str, ready: Sequence[Prepared], results: Mapping[str, Sequence[SeedResult]]
) -> Comparison:
    def runs_of(algorithm: str) -> Sequence[SeedResult]:
        label = next((method.label for method in ready if method.method.algorithm.name == algorithm), None)
        return results[label] if label else ()

    allreduce, ddp = runs_of("allreduce"), runs_of("ddp")
    first = ready[0].task
    return Comparison(
        experiment=experiment.name,
        command=command,
        clock="wall",
        nodes=experiment.nodes,
        rounds=experiment.rounds,
        seeds=experiment.seeds,
        score="test_loss" if first.data.classes is None else "accuracy",
        target=experiment.target,
        parameters=first.parameters,
        versions=versions(),
        topologies={
            topology_key(method.method): summary_of(method.topology) for method in ready if method.topology is not None
        },
        methods=[
            method_result(method.method, with_speedups(results[method.label], allreduce, ddp)) for method in ready
        ],
    )
