"""The learning rates that were tried: a table, a row a method and a column a rate, and what is said of it."""

from dataclasses import dataclass

from decentral.measure.comparison import Candidate, Comparison
from decentral.measure.tables import in_loss, in_percent, ordered, printable, said


@dataclass(frozen=True)
class Trial:
    """What one rate came to, as text, and whether it was chosen."""

    text: str
    chosen: bool


@dataclass(frozen=True)
class TuningTable:
    """Rates from the lowest to the highest, and for each method, by name, one trial per rate."""

    rates: list[str]
    rows: list[tuple[str, list[Trial]]]


def tuning_table(comparison: Comparison) -> TuningTable | None:
    """What was tried, in the order of the table of results; None where nothing was tuned."""

    def trial(candidate: Candidate, chosen: float) -> Trial:
        if candidate.failure is not None:
            text = "diverged"
        elif comparison.score == "accuracy":
            text = said(in_percent, candidate.accuracy)
        else:
            text = said(in_loss, candidate.loss)
        return Trial(text, candidate.lr == chosen)

    tuned = [(method.name, method.tuning) for method in ordered(comparison) if method.tuning is not None]
    if not tuned:
        return None
    rates = [f"{candidate.lr:g}" for candidate in tuned[0][1].candidates]
    return TuningTable(
        rates, [(printable(name), [trial(one, tuning.lr) for one in tuning.candidates]) for name, tuning in tuned]
    )


def tuning_lines(comparison: Comparison) -> list[str]:
    """What the learning rates were chosen by, and a line for each method of which some diverged."""
    if (tuned := comparison.tuned) is None:
        return []
    by = "accuracy" if comparison.score == "accuracy" else "loss"
    lines = [
        f"Learning rates: of each method's grid the best by {by} of the averaged model on {tuned.validation_samples:,} "
        f"training samples set aside, after {tuned.rounds:,} rounds at seed {tuned.seed}."
    ]
    for method in comparison.methods:
        tried = method.tuning.candidates if method.tuning else []
        if lost := [f"{candidate.lr:g}" for candidate in tried if candidate.failure]:
            lines.append(f"{printable(method.name)} diverged in the trial at lr {', '.join(lost)}.")
    return lines
