"""How fast each node got on: its steps per second, from the evaluations of a run and over the seeds."""

from collections.abc import Sequence
from statistics import median

from decentral.config import Experiment
from decentral.measure.comparison import Clock, Evaluation, PaceSpread, SeedResult


def paces(last: Evaluation, steps_per_round: int | None) -> list[float | None] | None:
    """Steps per second of each node, None for the dead; None where nothing took any time.

    In rounds all nodes are as fast as their slowest. In a free run each has its own steps and seconds.

    Args:
        last: the run's last evaluation.
        steps_per_round: of all nodes together; one each unless given.
    """
    nodes = len(last.bytes_sent)
    if (free := last.free_run) is not None:
        seconds = free.seconds or [last.seconds] * nodes
        return [made / took for made, took in zip(free.steps, seconds, strict=True)] if all(seconds) else None
    if not last.seconds:
        return None
    pace = last.round * (nodes if steps_per_round is None else steps_per_round) / nodes / last.seconds
    return [None if sent is None else pace for sent in last.bytes_sent]


def pace_of(runs: Sequence[SeedResult]) -> PaceSpread | None:
    """The slowest, median and fastest living node, each the median over the seeds that have one."""
    known = [sorted(pace for pace in run.steps_per_second or () if pace is not None) for run in runs]
    known = [paces for paces in known if paces]
    if not known:
        return None
    slowest, middle, fastest = zip(*((each[0], median(each), each[-1]) for each in known), strict=True)
    return PaceSpread(slowest=median(slowest), median=median(middle), fastest=median(fastest))


def without_paces(runs: Sequence[SeedResult]) -> list[SeedResult]:
    """The runs of a simulator without a clock, whose seconds say nothing."""
    return [run.model_copy(update={"steps_per_second": None}) for run in runs]


def is_unequal(experiment: Experiment, clock: Clock) -> bool:
    """Whether the experiment makes some nodes slower than others."""
    sizes, made = experiment.batch_size, experiment.clock if clock == "virtual" else None
    times = made.gradient_s if made else 0.0
    several = [each for each in (sizes, times) if isinstance(each, list) and len(set(each)) > 1]
    return bool(several or experiment.stragglers or (made and (made.stragglers or made.crashes or made.replay)))
