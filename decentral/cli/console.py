"""What is printed where: results on stdout, progress and faults on stderr."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from decentral.errors import DecentralError, PreemptedError
from decentral.transport.launcher import is_first

if TYPE_CHECKING:
    from decentral.measure.comparison import Evaluation

LINE_EVERY_S = 5.0
PLAIN_WIDTH = 120
"""Columns of a table that goes to a file or a pipe."""
STARTED_BY = "DECENTRAL_STARTED_BY"
"""Set in ranks whose parent is our own launcher, which checks before and reports after."""


class Prints:
    """Where what the user's own code prints goes: stderr wherever stdout is for one JSON document, or for nobody."""

    results: TextIO | None = None

    @classmethod
    @contextmanager
    def kept_off_stdout(cls) -> Iterator[None]:
        """Within it, only `print_json` reaches stdout."""
        cls.results = sys.stdout
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            cls.results = None


def _results() -> TextIO:
    return Prints.results or sys.stdout


def stdout() -> Console:
    """The console for results; plain and unwrapped where it is not a terminal."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, soft_wrap=True, width=PLAIN_WIDTH)


def print_json(document: Any) -> None:
    """The one JSON document of a `--json` run."""
    _results().write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def complain(line: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"decentral: {line}\n")
    sys.stderr.flush()


def fail(error: DecentralError) -> int:
    """Tell a fault, as JSON too where that was asked for; returns its exit code."""
    if STARTED_BY in os.environ:
        from decentral.transport.launch import leave_word

        leave_word(str(error))
    if not told_elsewhere(error):
        complain(str(error))
    if "--json" in sys.argv and is_first() and STARTED_BY not in os.environ:
        print_json({"error": str(error), "exit_code": error.exit_code})
    return error.exit_code


def told_elsewhere(error: DecentralError) -> bool:
    """Whether another process says it: the launcher or node 0 of a preemption, another rank of its own fault."""
    started = STARTED_BY in os.environ
    return started or error.echo if isinstance(error, PreemptedError) else started and error.echo


def told(row: "Evaluation") -> str:
    """An evaluation in one line."""
    worst = f" (worst node {min(row.accuracies):.4f})" if row.accuracies else ""
    return (
        f"round {row.round}  loss {_number(row.loss)}  {_score(row)}{worst}  "
        f"consensus distance {_number(row.consensus_distance)}  {row.seconds:.1f} s"
    )


def _score(row: "Evaluation") -> str:
    return f"accuracy {row.accuracy:.4f}" if row.accuracy is not None else f"test loss {_number(row.test_loss)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


class RunProgress:
    """Shows how far one or several runs are: a bar on a terminal, else one plain line every few seconds."""

    def __init__(self, bars: Progress | None, total: int) -> None:
        self._bars, self._total = bars, total
        self._tasks: dict[str, Any] = {}
        self._last = 0.0

    def __call__(self, name: str, row: "Evaluation") -> None:
        if self._bars is not None:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=self._total, state="")
            self._bars.update(self._tasks[name], completed=row.round, state=f"{_score(row)}  {row.seconds:.1f} s")
            self._bars.refresh()
        elif monotonic() - self._last >= LINE_EVERY_S or row.round == self._total:
            complain(f"{name}: {told(row)}")
            self._last = monotonic()


@contextmanager
def progress(total: int, shown: bool = True) -> Iterator[RunProgress]:
    """Progress of runs of `total` rounds each, on stderr."""
    if not shown or not sys.stderr.isatty():
        yield RunProgress(None, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
    )
    # Drawn at evaluations only: a thread that redraws would run on the training clock.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bars:
        yield RunProgress(bars, total)
