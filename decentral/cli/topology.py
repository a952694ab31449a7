"""`decentral topology list|show|gallery`: the gallery, and one of its graphs."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from decentral.cli import topology_gallery
from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral import config
    from decentral.topology.topology import Topology

app = typer.Typer(help="The gallery of graphs.", no_args_is_help=True)
app.command("gallery")(topology_gallery.gallery)


@app.command("list")
def list_(json: AsJson = False) -> None:
    """List the graphs of the gallery."""
    from decentral.topology import gallery

    summaries = {name: gallery.summary(gallery.find(name, Path())) for name in gallery.names()}
    if json:
        print_json(summaries)
        return
    table = Table(box=None, show_header=False)
    for name, summary in summaries.items():
        table.add_row(name, summary)
    stdout().print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A name of `topology list`, or a file.", show_default=False)],
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=100_000, metavar="N", help="How many nodes.")] = 8,
    options: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="KEY=VALUE", help="An option of the graph, weights= or schedule=."),
    ] = None,
    output: topology_gallery.Output = None,
    matrix: topology_gallery.Matrix = False,
    json: AsJson = False,
) -> None:
    """Draw a graph and say how fast it mixes."""
    from decentral.cli.explain import analysis_lines
    from decentral.topology.analysis import analyze
    from decentral.topology.picture import draw

    file = topology_gallery.checked(output, topology_gallery.PICTURES, matrix)
    section, topology = loaded(name, nodes, options or ())
    analysis = analyze(topology)
    written = {} if file is None else topology_gallery.picture(topology, file, matrix)
    if json:
        print_json(section.model_dump(mode="json") | analysis.as_dict() | written)
        return
    stdout().print(draw(topology) if file is None else str(file), markup=False)
    for line in analysis_lines(analysis):
        stdout().print(line)


def loaded(name: str, nodes: int, options: Iterable[str]) -> "tuple[config.Topology, Topology]":
    """The section that a name and `-s` options make, and its topology."""
    from decentral.document import Document
    from decentral.loading import example_with
    from decentral.topology import gallery

    document = Document("options", {}, {(): (1, 1)})
    for option in options:
        document = document.override(option)
    try:
        section = example_with(topology={**document.tree, "name": name}).topology
        return section, gallery.load(section, nodes, Path())
    except ConfigError as error:
        # The keys of `-s` have no `topology` in front.
        at = (error.at or ())[1:]
        raise document.located(at, str(error)) if at else ConfigError(str(error)) from error
