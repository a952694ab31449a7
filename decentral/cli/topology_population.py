"""`decentral topology population NAME`: tokens that are lost, and that fork where too few seem to live."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson
from decentral.cli.topology import loaded
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral.topology.hops import Integers

ENOUGH = 0.8
"""Of the tokens of the start: as many are enough again after a loss."""


def population(
    name: Annotated[str, typer.Argument(help="A name of `topology list`, or a file.", show_default=False)],
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=10_000, metavar="N", help="How many nodes.")] = 100,
    kernel: Annotated[
        str,
        typer.Option("--kernel", help="simple, weighted, metropolis, non-backtracking, srrw or hdt.", metavar="KERNEL"),
    ] = "metropolis",
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="A", help="How strongly a token's visits repel it (srrw, hdt).")
    ] = 0.0,
    tokens: Annotated[
        int, typer.Option("--tokens", min=1, max=1000, metavar="Z", help="How many there are at the start.")
    ] = 10,
    fork_below: Annotated[
        float | None,
        typer.Option("--fork-below", metavar="E", help="Fork where half of the tokens seem fewer; never unless given."),
    ] = None,
    drop_above: Annotated[
        float | None, typer.Option("--drop-above", metavar="E", help="Drop where half of the tokens seem more.")
    ] = None,
    kill: Annotated[
        list[str] | None,
        typer.Option("--kill", metavar="STEP:COUNT", help="So many tokens are lost at this step; may be repeated."),
    ] = None,
    loss: Annotated[
        float, typer.Option("--loss", min=0, max=1, metavar="P", help="The probability that a hop loses its token.")
    ] = 0.0,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=1_000_000, metavar="N", help="Visits of each token.")
    ] = 9000,
    runs: Annotated[int, typer.Option("--runs", min=1, max=1000, metavar="R", help="With seeds from --seed on.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Of the tokens' paths and fates.")] = 0,
    options: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="An option of the graph.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Let tokens be lost: how many live, with and without a rule by which they fork?"""
    from decentral.topology.chains import chain
    from decentral.topology.population import Population, Regulation
    from decentral.topology.walks import Walk

    kills = _kills(kill or (), steps)
    if drop_above is not None and fork_below is None:
        raise ConfigError(f"found --drop-above {drop_above:g} alone; give --fork-below too, or all tokens drop in time")
    regulation = None if fork_below is None else Regulation(fork_below, drop_above, tokens)
    _, topology = loaded(name, nodes, options or ())
    walked = chain(topology.graph, Walk(kernel, alpha))
    found = [Population(walked, seed + run, tokens, regulation, loss).run(steps, kills) for run in range(runs)]
    told = [_told(each, kills, tokens) for each in found]
    if json:
        document = {"name": topology.name, "nodes": topology.nodes, "edges": len(topology.edges), "seed": seed}
        print_json(document | {"tokens": tokens, "enough": _enough(tokens), "runs": told})
    else:
        _print(told, f"{topology.name}: {topology.nodes} nodes, {len(topology.edges)} edges", tokens)


def _kills(words: list[str] | tuple[()], steps: int) -> dict[int, int]:
    """Tokens lost by step."""
    kills: dict[int, int] = {}
    for word in words:
        step, _, count = word.partition(":")
        if not (step.isdecimal() and count.isdecimal() and int(step) < steps):
            raise ConfigError(f"--kill {word}: required: STEP:COUNT, a step below {steps} and how many tokens it loses")
        kills[int(step)] = kills.get(int(step), 0) + int(count)
    return kills


def _enough(tokens: int) -> int:
    return max(1, round(ENOUGH * tokens))


def _told(population: "Integers", kills: dict[int, int], tokens: int) -> dict[str, Any]:
    """One run, for JSON."""
    from decentral.topology.population import recovery

    last = len(population) - 1
    after = [
        {"step": step, "lost": lost, "steps_until_enough": recovery(population, step, _enough(tokens))}
        for step, lost in sorted(kills.items())
    ]
    marks = sorted({round(last * mark / 60) for mark in range(61)})
    return {
        "least": int(population.min()),
        "most": int(population.max()),
        "final": int(population[-1]),
        "kills": after,
        "population": {"steps": marks, "tokens": population[marks].tolist()},
    }


def _print(told: list[dict[str, Any]], graph: str, tokens: int) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("run", "least", "most", "final", f"steps until {_enough(tokens)} live again after each loss"):
        table.add_column(title, justify="right", no_wrap=True)
    for run, one in enumerate(told):
        waited = ["never" if k["steps_until_enough"] is None else f"{k['steps_until_enough']:,}" for k in one["kills"]]
        table.add_row(str(run), str(one["least"]), str(one["most"]), _final(one["final"]), ", ".join(waited) or "-")
    out = stdout()
    out.print(f"  {graph}; {tokens} tokens at the start")
    out.print(table)


def _final(living: int) -> str:
    return str(living) if living else "extinct"
