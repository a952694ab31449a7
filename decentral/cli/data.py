"""`decentral data show FILE`: who has what."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson, File, Overrides
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral.measure.holdings import Holdings

COLUMNS = 12
"""Classes up to which each has a column of the table."""
ROWS = 64
"""Nodes up to which each has a row."""
KINDS = ("svg", "png")

app = typer.Typer(help="The data of an experiment.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Keeps `show` a name of its own: typer would take a single command for the whole."""


@app.command("show")
def show(
    file: File,
    set_: Overrides = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, max=2**31 - 1, metavar="N", help="Of the split; the first of seeds unless given."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Draw it too, as .svg or .png.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show who has what: samples of each class on each node, and how far apart the nodes' data are."""
    from decentral.loading import load
    from decentral.measure.holdings import gradients_at_start, holdings
    from decentral.training.task import task

    kind = _kind(picture)
    loaded = load(file, set_ or ())
    experiment = loaded.experiment
    with loaded.document.placing():
        ready = task(experiment, experiment.seeds[0] if seed is None else seed)
    held = holdings(ready, experiment)
    heterogeneity, diversity = gradients_at_start(ready)
    if picture is not None:
        _write(picture, held, kind)
    if json:
        found = {"heterogeneity_at_start": heterogeneity, "gradient_diversity_at_start": diversity}
        print_json(held.model_dump(mode="json") | found)
        return
    out = stdout()
    for line in _opening(held):
        out.print(line, markup=False)
    out.print(_table(held))
    for line in _closing(held, heterogeneity, diversity):
        out.print(line, markup=False)
    if picture is not None:
        out.print(f"drawn in {picture}", markup=False)


def _kind(picture: Path | None) -> str:
    kind = "" if picture is None else picture.suffix.lower().removeprefix(".")
    if picture is not None and kind not in KINDS:
        raise ConfigError(f"-o {picture}: found the ending {picture.suffix!r}; required: .svg or .png")
    return kind


def _write(picture: Path, held: "Holdings", kind: str) -> None:
    from decentral.measure.atomic import write_atomically
    from decentral.measure.holdings_figure import holdings_picture

    drawing = holdings_picture(held, kind)
    try:
        write_atomically(picture, drawing)
    except OSError as error:
        raise ConfigError(f"-o {picture}: cannot be written ({error.strerror}); give another place") from error


def _opening(held: "Holdings") -> Iterator[str]:
    yield (
        f"{held.data}, {held.partition}, seed {held.seed}: {held.samples:,} training samples on {len(held.nodes)} "
        f"nodes, {held.test_samples:,} test samples"
    )
    for name, version in held.versions.items():
        yield f"{name}: {version}"
    if held.classes is None:
        yield "The targets are numbers: there are no classes to count, and the gradients below say how nodes differ."


def _table(held: "Holdings") -> Table:
    from decentral.measure.tables import printable

    wide = held.classes is not None and len(held.classes) <= COLUMNS
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), show_footer=False)
    table.add_column("node", justify="right")
    table.add_column("samples", justify="right")
    for name in held.classes or () if wide else ():
        table.add_column(printable(name), justify="right")
    if held.classes is not None:
        table.add_column("label distance", justify="right")
        table.add_column("effective classes", justify="right")
    last = "most of" if held.classes is not None and not wide else ""
    origins = held.nodes[0].origins is not None
    table.add_column("origins" if origins else last, overflow="fold")
    if held.nodes[0].view is not None:
        table.add_column("sees them")
    for row in _rows(held, wide, origins):
        table.add_row(*row)
    return table


def _rows(held: "Holdings", wide: bool, origins: bool) -> Iterator[list[str]]:
    from decentral.measure.tables import printable

    for number, node in enumerate(held.nodes[:ROWS]):
        row = [str(number), f"{node.samples:,}"]
        row += [str(count) if count else "·" for count in node.counts or ()] if wide else []
        if node.label_distance is not None and node.effective_classes is not None:
            row += [f"{node.label_distance:.3f}", f"{node.effective_classes:.1f}"]
        if origins:
            names = [printable(name) for name in node.origins or ()]
            row.append(f"{len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")
        elif held.classes is not None and node.counts is not None and not wide:
            counted = sorted(zip(node.counts, held.classes, strict=True), key=lambda pair: -pair[0])[:3]
            row.append(", ".join(f"{printable(name)} {count / sum(node.counts):.0%}" for count, name in counted))
        else:
            row.append("")
        yield row + ([node.view] if node.view is not None else [])


def _closing(held: "Holdings", heterogeneity: float, diversity: float | None) -> Iterator[str]:
    if len(held.nodes) > ROWS:
        yield f"and {len(held.nodes) - ROWS} more nodes; --json has all"
    alike = f"the largest node holds {held.size_ratio:.3g} times as many samples as the smallest"
    yield alike if held.size_ratio > 1 else "all nodes hold equally many samples"
    if held.label_distance is not None and held.classes is not None:
        yield (
            f"label distance to the mix of all nodes, by total variation: {held.label_distance:.3f} in the mean, "
            f"0 for the same mix; {len(held.classes)} classes"
        )
    said = "" if diversity is None else f", gradient diversity {diversity:.3g} (1: all nodes pull the same way)"
    yield f"gradients at the first model, on up to 256 samples a node: heterogeneity zeta^2 {heterogeneity:.4g}{said}"
