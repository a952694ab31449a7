"""From the evaluations of runs to the numbers that are compared: what was reached, when, and at what cost."""

from collections.abc import Sequence
from statistics import median

from decentral.config import SASRRW, Algorithm, Hierarchical
from decentral.measure.comparison import Evaluation, MethodResult, Repelled, SeedResult, Spread, Tuning
from decentral.measure.pace import pace_of, paces
from decentral.methods import ResolvedMethod, schedule_words

MEASURES = (
    "final_accuracy",
    "worst_node_accuracy",
    "final_test_loss",
    "rounds_to_target",
    "seconds_to_target",
    "bytes_to_target",
    "seconds",
    "bytes_per_node",
    "speedup_vs_allreduce",
    "speedup_vs_ddp",
)


def seed_result(
    seed: int,
    folder: str,
    rows: Sequence[Evaluation],
    target: float | None,
    failure: str | None,
    steps_per_round: int | None = None,
) -> SeedResult:
    """What one run came to; a run that failed came to nothing.

    Args:
        steps_per_round: of all nodes together; one each unless given.
    """
    last = rows[-1] if rows and failure is None else None
    reached = next((row for row in rows if _reaches(row, target)), None) if last else None
    return SeedResult(
        seed=seed,
        folder=folder,
        final_accuracy=last.accuracy if last else None,
        worst_node_accuracy=min(last.accuracies) if last and last.accuracies else None,
        final_test_loss=last.test_loss if last else None,
        consensus_distance=last.consensus_distance if last else None,
        rounds_to_target=reached.round if reached else None,
        seconds_to_target=reached.seconds if reached else None,
        bytes_to_target=reached.bytes_per_node if reached else None,
        seconds=last.seconds if last else None,
        bytes_per_node=last.bytes_per_node if last else None,
        speedup_vs_allreduce=None,
        speedup_vs_ddp=None,
        failure=failure,
        steps_per_second=paces(last, steps_per_round) if last else None,
        staleness=last.free_run.staleness if last and last.free_run else None,
    )


def _reaches(row: Evaluation, target: float | None) -> bool:
    """Whether every living node's own model meets the target: accuracy from below, test loss from above."""
    if target is None:
        return False
    if row.node_accuracy is not None:
        return min(row.accuracies) >= target
    losses = [row.node_test_loss[node] for node in row.living]
    return all(loss is not None and loss <= target for loss in losses)


def with_speedups(
    runs: Sequence[SeedResult], allreduce: Sequence[SeedResult], ddp: Sequence[SeedResult]
) -> list[SeedResult]:
    """The runs with their speed-up over each baseline's fastest run of the same seed; None where one got nowhere."""

    def speedup(run: SeedResult, baseline: Sequence[SeedResult]) -> float | None:
        rivals = [other.seconds_to_target for other in baseline if other.seed == run.seed]
        reached = [seconds for seconds in rivals if seconds is not None]
        return min(reached) / run.seconds_to_target if reached and run.seconds_to_target else None

    return [
        run.model_copy(update={"speedup_vs_allreduce": speedup(run, allreduce), "speedup_vs_ddp": speedup(run, ddp)})
        for run in runs
    ]


def method_result(
    method: ResolvedMethod,
    runs: Sequence[SeedResult],
    consensus_step: float | None = None,
    tuning: Tuning | None = None,
    steps_per_round: int | None = None,
    staleness_counts: str | None = None,
) -> MethodResult:
    """A method over all its seeds: medians, with their spread."""
    spread = {name: _spread([getattr(run, name) for run in runs], name) for name in MEASURES}
    return MethodResult(
        name=method.label,
        algorithm=method.algorithm.name,
        topology=None if method.algorithm.centralized else topology_key(method),
        baseline=method.baseline,
        consensus_step=consensus_step,
        tuning=tuning,
        steps_per_round=steps_per_round,
        repelled=_repelled(method.algorithm),
        spread=spread,
        per_seed=list(runs),
        pace=pace_of(runs),
        staleness_counts=staleness_counts,
        **{name: spread[name].median for name in MEASURES},
    )


def _repelled(section: Algorithm) -> Repelled | None:
    """Of SA-SRRW as theory has it: the kernel srrw, and all nodes alike."""
    if not isinstance(section, SASRRW) or section.kernel != "srrw" or section.target == "degree":
        return None
    return Repelled(alpha=section.alpha, gamma_decay=section.gamma_decay, decay=section.decay)


def topology_key(method: ResolvedMethod) -> str:
    """What tells a method's graph from others: its name, options, weights and schedule, and whether of groups."""
    section = method.topology
    words = [section.name, *(f"{key}={value}" for key, value in sorted(section.options.items()))]
    words += [section.weights] if section.weights not in (None, "metropolis") else []
    words += [f"scaling={section.scaling}"] if section.scaling != "none" else []
    words += schedule_words(section)
    if isinstance(method.algorithm, Hierarchical):
        words.append(f"of groups of {method.algorithm.group}")
    return " ".join(words)


def _spread(values: Sequence[float | None], name: str) -> Spread:
    """Minimum, median and maximum; a run that did not get there counts as the worst.

    A speed-up is missing where either side did not get there, so it is taken over the seeds where both did.
    """
    if name.startswith("speedup"):
        values = [value for value in values if value is not None] or [None]
    worst = float("-inf") if name.endswith("accuracy") else float("inf")
    ordered = sorted(worst if value is None else value for value in values)

    def number(value: float) -> float | None:
        return None if value in (float("inf"), float("-inf")) or value != value else value

    return Spread(min=number(ordered[0]), median=number(median(ordered)), max=number(ordered[-1]))
