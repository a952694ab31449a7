"""What was predicted of a comparison beside what was measured: a table, a row a method."""

from dataclasses import dataclass

from decentral.measure.comparison import Comparison, MethodResult
from decentral.measure.tables import Quantity, in_rate, in_seconds, ordered, printable, said

CAPTION = (
    "Predicted in virtual time by the experiment's clock section alone, DDP as all-reduce. Steps a second are the "
    "median node's; errors are predicted over measured, less 1."
)


@dataclass(frozen=True)
class Foretold:
    """One figure of a method, the medians over the seeds; None where there is none."""

    predicted: float | None
    measured: float | None

    @property
    def error(self) -> float | None:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1 if self.predicted is not None and self.measured else None


@dataclass(frozen=True)
class PredictionTable:
    """Titles, and a row a method: its name, and a cell for each title."""

    caption: str
    titles: list[str]
    rows: list[tuple[str, list[str]]]


def foretold(comparison: Comparison) -> list[tuple[str, Foretold, Foretold]]:
    """Of each method its name, steps per second of the median node, and seconds: to the target, or of the whole run."""

    def seconds(method: MethodResult) -> float | None:
        return method.seconds if comparison.target is None else method.seconds_to_target

    known = {method.name: method for method in comparison.predicted or ()}
    return [
        (
            printable(method.name),
            Foretold(guess.steps_per_second, method.steps_per_second),
            Foretold(seconds(guess), seconds(method)),
        )
        for method in ordered(comparison)
        if (guess := known.get(method.name)) is not None
    ]


def prediction_table(comparison: Comparison) -> PredictionTable | None:
    """What was predicted and what was measured, in the order of the table of results; None where nothing was."""
    if comparison.predicted is None:
        return None
    seconds = "seconds in all" if comparison.target is None else "seconds to target"
    kinds = ["predicted", "measured", "error"]
    titles = [f"Steps/s, {kind}" for kind in kinds] + [f"{seconds.capitalize()}, {kind}" for kind in kinds]
    return PredictionTable(
        CAPTION,
        titles,
        [(name, [*_cells(pace, in_rate), *_cells(spent, in_seconds)]) for name, pace, spent in foretold(comparison)],
    )


def _cells(figure: Foretold, quantity: Quantity) -> list[str]:
    error = "none" if figure.error is None else f"{100 * figure.error:+.0f}%"
    return [said(quantity, figure.predicted), said(quantity, figure.measured), error]
