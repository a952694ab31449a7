"""`decentral trace`: the timelines that `--trace` has recorded, merged on one clock or summed up."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral.measure.trace_summary import RankSummary, TraceSummary

app = typer.Typer(help="Timelines of a run recorded with --trace.", no_args_is_help=True)

Run = Annotated[Path, typer.Argument(help="A run folder, recorded with --trace.", metavar="RUN", show_default=False)]


@app.command("merge")
def merge(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="The merged file; RUN/trace.json unless given.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Merge the ranks' traces on rank 0's clock, for Perfetto (ui.perfetto.dev) or chrome://tracing."""
    from decentral.measure import trace
    from decentral.measure.trace_summary import summary

    ranks = trace.read_ranks(run)
    out = out or run / "trace.json"
    trace.merge(ranks, out)
    found = summary(ranks)
    if json:
        print_json(found.model_dump(mode="json") | {"trace": str(out)})
        return
    clock = f"clocks within {found.clock_error_us:.0f} us" if found.clock_error_us else "one clock"
    stdout().print(f"{out}: {len(ranks)} ranks, {clock}")
    _print_dropped(found)


@app.command("summary")
def summarize(run: Run, json: AsJson = False) -> None:
    """What each rank did with the time of its rounds."""
    from decentral.measure.trace import read_ranks
    from decentral.measure.trace_summary import summary

    found = summary(read_ranks(run))
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found)


def rounds_asked(trace: bool, trace_rounds: int | None) -> int | None:
    """How many rounds `--trace` is to keep; None without it.

    Raises:
        ConfigError: `--trace-rounds` alone.
    """
    from decentral.timeline import ROUNDS

    if not trace and trace_rounds is not None:
        raise ConfigError(f"--trace-rounds {trace_rounds} without --trace; add --trace, or leave it out")
    return (trace_rounds or ROUNDS) if trace else None


def words(rounds: int | None) -> list[str]:
    """The options that ask a rank for a trace of so many rounds."""
    return [] if rounds is None else ["--trace", "--trace-rounds", str(rounds)]


def _print(found: "TraceSummary") -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("node", justify="right")
    table.add_column("round", justify="right")
    categories = [name for name in found.ranks[0].shares if any(rank.shares.get(name) for rank in found.ranks)]
    for name in (*categories, "overlap"):
        table.add_column(name, justify="right")
    table.add_column("waited for, a message")
    for rank in found.ranks:
        table.add_row(*_row(rank, categories))
    stdout().print(f"{found.label}, {found.nodes} nodes; shares of the time of all rounds")
    stdout().print(table)
    if found.slowest_edge is not None:
        stdout().print("slowest edge: {}-{}".format(*found.slowest_edge))
    _print_dropped(found)


def _row(rank: "RankSummary", categories: list[str]) -> list[str]:
    return [
        str(rank.node),
        "-" if rank.round_ms is None else f"{rank.round_ms:.2f} ms",
        *(f"{rank.shares.get(name, 0.0):.1%}" for name in categories),
        "-" if rank.overlap is None else f"{rank.overlap:.0%}",
        ", ".join(f"{neighbor}: {waited_ms:.2f} ms" for neighbor, waited_ms in rank.waited_ms.items()),
    ]


def _print_dropped(found: "TraceSummary") -> None:
    if any(rank.dropped_rounds for rank in found.ranks):
        kept = max(rank.rounds for rank in found.ranks)
        stdout().print(f"of the last {kept} rounds; earlier ones were dropped (--trace-rounds keeps more)")
