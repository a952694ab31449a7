"""Choose each method's learning rate from the grid of `tune:`, by its averaged model on samples set aside."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from decentral.config import Experiment, Tune
from decentral.errors import ConfigError, DivergedError
from decentral.measure.comparison import Candidate, Evaluation, Tuned, Tuning
from decentral.measure.evaluation import Observe
from decentral.measure.prepared import Prepared, prepare
from decentral.measure.record import Metrics, folder_of
from decentral.methods import ResolvedMethod, with_rate
from decentral.training.consensus_step import ConsensusSteps
from decentral.training.task import Task, task

Trial = Callable[[Prepared, Observe], object]
"""Performs one run, reporting its evaluations."""

Agree = Callable[[str, str], str]
"""Called as agree(key, own): the value of node 0's process, known to all; `own` where there is one process."""

Progress = Callable[[str, Evaluation], None]
"""Called as progress(name of the run, evaluation)."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Methods as they are compared.

    Attributes:
        methods: each with the learning rate that it runs at.
        tuned: what the rates were chosen by; None where they are the file's.
        tunings: by label, how each came to its own.
    """

    methods: Sequence[ResolvedMethod]
    tuned: Tuned | None = None
    tunings: Mapping[str, Tuning] = field(default_factory=dict)


def trial_task(experiment: Experiment) -> Task:
    """The task of the trials: its test samples are training samples that were set aside.

    Raises:
        ConfigError: the experiment has no grid, or no samples can be set aside.
    """
    section = _grid_of(experiment)
    return task(experiment, _seed_of(section, experiment), section.validation)


def tune(
    experiment: Experiment,
    candidates: Sequence[ResolvedMethod],
    folder: Path,
    trial: Trial,
    steps: ConsensusSteps,
    progress: Progress,
    agree: Agree = lambda _key, own: own,
) -> Chosen:
    """Run every method once for every learning rate of the grid, and give it the best.

    The same experiment chooses the same rates: trials are runs like any other, and node 0's process chooses for all.

    Args:
        candidates: the methods, labeled without their learning rates.
        folder: each trial's metrics go to `tune/METHOD/lr=RATE` in it.
        steps: the consensus steps of this job.

    Raises:
        ConfigError: the experiment has no grid, or a method is at fault.
        LostNeighborError: a rank died.
    """
    section, shared = _grid_of(experiment), trial_task(experiment)
    rounds = section.rounds or experiment.rounds
    short = experiment.model_copy(update={"rounds": rounds, "evaluate_every": rounds, "diagnostics": []})
    tunings: dict[str, Tuning] = {}
    for index, method in enumerate(candidates):
        found = []
        for lr in sorted(set(section.lr)):
            at_rate = replace(method, optimizer=with_rate(method.optimizer, lr))
            ready = prepare(short, at_rate, shared.seed, shared, steps)
            place = folder / "tune" / folder_of(index, method.label) / f"lr={lr:g}"
            found.append(_tried(ready, place, trial, progress))
        own = choose(found).model_dump_json()
        tunings[method.label] = Tuning.model_validate_json(agree(f"tune/{index}", own))
    chosen = [replace(m, optimizer=with_rate(m.optimizer, tunings[m.label].lr)) for m in candidates]
    training, validation = len(shared.data.train_targets), len(shared.data.test_targets)
    tuned = Tuned(seed=shared.seed, rounds=rounds, training_samples=training, validation_samples=validation)
    return Chosen(chosen, tuned, tunings)


def choose(candidates: Sequence[Candidate]) -> Tuning:
    """The best of one method's candidates, from the lowest rate to the highest.

    The highest accuracy wins, then the lowest loss, then the lowest rate. One that ended early loses to any that did
    not; where all did, it is the lowest rate.
    """

    def rank(candidate: Candidate) -> tuple[bool, float, float]:
        accuracy = -math.inf if candidate.accuracy is None else candidate.accuracy
        loss = math.inf if candidate.loss is None else candidate.loss
        return candidate.failure is not None, -accuracy, loss

    best = min(candidates, key=rank)
    edge = "lowest" if best is candidates[0] else "highest" if best is candidates[-1] else None
    return Tuning(lr=best.lr, edge=edge, candidates=list(candidates))


def _grid_of(experiment: Experiment) -> Tune:
    if experiment.tune is None:
        raise ConfigError("--tune found no `tune:` section; give it the grid, such as `tune: {lr: [0.01, 0.1, 1]}`")
    return experiment.tune


def _seed_of(section: Tune, experiment: Experiment) -> int:
    return experiment.seeds[0] if section.seed is None else section.seed


def _tried(ready: Prepared, place: Path, trial: Trial, progress: Progress) -> Candidate:
    place.mkdir(parents=True, exist_ok=True)
    metrics, lr, failure = Metrics(place), ready.method.optimizer.lr, None

    def observe(row: Evaluation) -> None:
        metrics(row)
        progress(f"tune {ready.label} lr={lr:g}", row)

    try:
        trial(ready, observe)
    except DivergedError as error:
        failure = str(error)
    last = metrics.rows[-1] if metrics.rows and failure is None else None  # only node 0's process has any
    return Candidate(
        lr=lr, accuracy=last.accuracy if last else None, loss=last.test_loss if last else None, failure=failure
    )
