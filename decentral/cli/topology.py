"""`decentral topology list|show`: the gallery, and one of its graphs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson
from decentral.errors import ConfigError

app = typer.Typer(help="The gallery of graphs.", no_args_is_help=True)


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
    json: AsJson = False,
) -> None:
    """Draw a graph and say how fast it mixes."""
    from decentral.cli.explain import analysis_lines
    from decentral.document import Document
    from decentral.topology import gallery
    from decentral.topology.analysis import analyze
    from decentral.topology.picture import draw

    document = Document("options", {}, {(): (1, 1)})
    for option in options or ():
        document = document.override(option)
    given = dict(document.tree)
    weights, schedule = given.pop("weights", "metropolis"), given.pop("schedule", "static")
    try:
        topology = gallery.load(name, given, nodes, weights, Path(), (), schedule)
    except ConfigError as error:
        raise document.located(error.at, str(error)) if error.at else ConfigError(str(error)) from error
    analysis = analyze(topology)
    if json:
        print_json({"name": name, "weights": weights, "schedule": schedule} | analysis.as_dict())
        return
    stdout().print(draw(topology), markup=False)
    for line in analysis_lines(analysis):
        stdout().print(line)
