"""`decentral topology explain NAME`: what a graph is worth, and which methods may run on it."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from decentral.cli.console import print_json, stdout
from decentral.cli.explain import analysis_lines
from decentral.cli.options import AsJson
from decentral.cli.quantities import parameters, size
from decentral.cli.topology import loaded
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral.topology.analysis import Analysis
    from decentral.topology.explanation import Explanation
    from decentral.topology.traffic import Traffic

MOST_NODES = 100_000
SHOWN_RATES = (1 / 16, 1 / 4, 1 / 2, 1, 3 / 2)
"""Learning rates of the printed table, as shares of the best."""

Parameters = Annotated[
    str | None, typer.Option("--parameters", metavar="D", help="Of the model, such as 10M; 4 bytes each.")
]
ModelBytes = Annotated[str | None, typer.Option("--model-bytes", metavar="SIZE", help="Of the model, such as 40MB.")]
Noise = Annotated[
    float, typer.Option("--noise", metavar="ZETA", help="Of the quadratic's gradients, above 1; 50 as in the paper.")
]


def explain(
    name: Annotated[str, typer.Argument(help="A name of `topology list`, or a file.", show_default=False)],
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="How many nodes.")] = 8,
    options: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="KEY=VALUE", help="An option of the graph, weights= or schedule=."),
    ] = None,
    parameters: Parameters = None,
    model_bytes: ModelBytes = None,
    noise: Noise = 50.0,
    json: AsJson = False,
) -> None:
    """Say what a graph is worth: how many neighbors count, which learning rates it bears, which methods may run."""
    from decentral.topology.explanation import explained
    from decentral.topology.quadratic_rates import check_noise

    check_nodes(nodes)
    check_noise(noise)
    weight = bytes_of(parameters, model_bytes)
    section, topology = loaded(name, nodes, options or ())
    explanation = explained(topology, noise)
    if json:
        print_json(section.model_dump(mode="json") | explanation.as_dict(weight))
        return
    out = stdout()
    out.print(name, markup=False)
    for line in [*analysis_lines(explanation.analysis), *_notes(explanation.analysis)]:
        out.print(line, markup=False)
    out.print(f"  {_traffic_words(explanation.traffic, weight)}")
    _print_neighbors(explanation)
    _print_rates(explanation)
    out.print("\nwhich methods may run on it:")
    table = Table(box=None, show_header=False)
    for verdict in explanation.verdicts:
        table.add_row(verdict.method, "yes" if verdict.admitted else "no", verdict.reason)
    out.print(table)


def check_nodes(nodes: int) -> None:
    """Raise ConfigError unless there can be so many nodes."""
    if not 1 <= nodes <= MOST_NODES:
        raise ConfigError(f"--nodes {nodes}; required: 1 to {MOST_NODES:,}")


def bytes_of(parameters_text: str | None, bytes_text: str | None) -> float | None:
    """The model's bytes, from one of two options; None where neither is given.

    Raises:
        ConfigError: nonsense, or both.
    """
    from decentral.topology.traffic import BYTES_PER_PARAMETER

    if parameters_text is not None and bytes_text is not None:
        raise ConfigError("--parameters and --model-bytes say the same; give one of them")
    if bytes_text is not None:
        return size("--model-bytes", bytes_text)
    return None if parameters_text is None else BYTES_PER_PARAMETER * parameters("--parameters", parameters_text)


def _notes(analysis: "Analysis") -> list[str]:
    over = {1: "the same in every round", None: "drawn anew in every round"}
    turns = over.get(analysis.period, f"a period of {analysis.period} turns")
    notes = [f"  mixing matrix {analysis.mixing.replace('-', ' ')}, {turns}"]
    if analysis.period != 1 or analysis.mixing != "symmetric":
        notes.append(f"  the gap is 1 less {analysis.gap_of}")
    return notes


def _traffic_words(traffic: "Traffic", model_bytes: float | None) -> str:
    from decentral.measure.tables import in_bytes, said

    mean, busiest = traffic.messages_mean, traffic.messages_busiest
    told = f"messages per node and round {mean:.4g}, busiest node {busiest}"
    if model_bytes is None:
        return told
    return f"{told}; of {said(in_bytes, model_bytes)} each: {said(in_bytes, mean * model_bytes)}, busiest node " + said(
        in_bytes, busiest * model_bytes
    )


def _print_neighbors(explanation: "Explanation") -> None:
    out = stdout()
    if not explanation.neighbors:
        out.print(f"\neffective number of neighbors: {explanation.method}")
        return
    out.print("\neffective number of neighbors n_W (1: alone, as many as nodes: exact averaging):")
    table = Table(box=None, header_style="bold")
    table.add_column("gamma")
    for gamma, _ in explanation.neighbors:
        table.add_column(f"{gamma:g}", justify="right")
    table.add_row("mean", *("-" if found is None else f"{found.mean:.4g}" for _, found in explanation.neighbors))
    worst = [None if found is None else found.worst for _, found in explanation.neighbors]
    table.add_row("worst node", *("-" if value is None else f"{value:.4g}" for value in worst))
    out.print(table)
    out.print(f"  {explanation.method}")
    if any(found is None for _, found in explanation.neighbors):
        out.print("  -: gossip is too slow here for n_W at this gamma to be found in the turns that were carried")


def _print_rates(explanation: "Explanation") -> None:
    best = explanation.best
    if best is None:
        return
    out = stdout()
    out.print(f"\nD-SGD on a random quadratic of noise {explanation.noise:g}, E||x||^2 times 1 - rate per round:")
    table = Table(box=None, header_style="bold")
    for column in ("learning rate", "rate", "rounds to a thousandth"):
        table.add_column(column, justify="right")
    for learning_rate, rate in explanation.around_best(SHOWN_RATES):
        table.add_row(f"{learning_rate:.4g}", *_rate_cells(rate))
    out.print(table)
    out.print(
        f"  best learning rate {best.learning_rate:.4g} with rate {best.rate:.4g}; "
        f"E||x||^2 grows from {best.largest_stable:.4g} on"
    )


def _rate_cells(rate: float | None) -> tuple[str, str]:
    from math import ceil, log

    if rate is None:
        return "-", "-"
    return f"{rate:.4g}", f"{ceil(log(1e-3) / log(1 - rate))}" if 0 < rate < 1 else "never"
