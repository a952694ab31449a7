"""`decentral topology rank`: which graph of the gallery to pick for a number of nodes, a degree and links."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson
from decentral.cli.quantities import duration, rate
from decentral.cli.topology_explain import ModelBytes, Noise, Parameters, bytes_of, check_nodes
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral.topology.ranking import Entry, Link, Wish


def rank(
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="How many nodes.", show_default=False)],
    degree_max: Annotated[
        int | None,
        typer.Option("--degree-max", min=1, metavar="D", help="Neighbors of a node in one round, at most."),
    ] = None,
    gamma: Annotated[
        float | None, typer.Option("--gamma", metavar="G", help="Rank by n_W at this gamma in place of the rate.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", metavar="ETA", help="Learning rate; each graph's own best unless given.")
    ] = None,
    noise: Noise = 50.0,
    parameters: Parameters = None,
    model_bytes: ModelBytes = None,
    link: Annotated[
        str | None, typer.Option("--link", metavar="RATE", help="Rank by the rate per second over links such as 1gbit.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option("--latency", metavar="TIME", help="Of the link, one way, such as 1ms.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Picture to write: .svg or .png.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Rank the gallery's graphs by the rate that D-SGD is predicted to have on them."""
    from decentral.topology import gallery
    from decentral.topology.ranking import Wish, ranked, why_not_the_gap
    from decentral.topology.ranking_picture import check_target, save

    check_nodes(nodes)
    if output is not None:
        check_target(output)
    wish = Wish(gamma, lr, noise, _link(bytes_of(parameters, model_bytes), link, latency))
    _check(wish)
    entries, omitted = ranked(gallery.names(), nodes, degree_max, wish)
    if not entries:
        bound = "" if degree_max is None else f" and at most {degree_max} neighbors in a round; raise --degree-max"
        raise ConfigError(f"no graph of the gallery has {nodes} nodes{bound}")
    sentences = [sentence for sentence in (_meaning(wish), why_not_the_gap(entries, wish)) if sentence is not None]
    at_most = "" if degree_max is None else f", at most {degree_max} neighbors in a round"
    title = f"{nodes} nodes{at_most}"
    if output is not None:
        save(entries, wish, title, output)
    if json:
        print_json(
            {
                "nodes": nodes,
                "degree_max": degree_max,
                "noise": noise,
                "ranking": [_row(place, entry) for place, entry in enumerate(entries, start=1)],
                "omitted": {one.name: one.reason for one in omitted},
                "notes": sentences,
            }
        )
        return
    out = stdout()
    out.print(title)
    out.print(_table(entries, wish))
    for sentence in sentences:
        out.print(f"  {sentence}", markup=False)
    if omitted:
        out.print("\nnot ranked:")
    for one in omitted:
        out.print(f"  {one.name}: {one.reason}", markup=False)


def _check(wish: "Wish") -> None:
    from decentral.topology.effective_neighbors import check_gamma
    from decentral.topology.quadratic_rates import check_learning_rate, check_noise

    check_noise(wish.noise)
    if wish.gamma is not None:
        check_gamma(wish.gamma)
        if wish.learning_rate is not None or wish.link is not None:
            raise ConfigError("--gamma ranks by n_W alone; leave out --lr and --link, or --gamma")
    if wish.learning_rate is not None:
        check_learning_rate(wish.learning_rate)


def _link(weight: float | None, link: str | None, latency: str | None) -> "Link | None":
    """None where no rate per second is asked for.

    Raises:
        ConfigError: nonsense, or options that need one another.
    """
    from decentral.topology.ranking import Link

    if link is None:
        if latency is not None or weight is not None:
            given = "--latency" if latency is not None else "--parameters or --model-bytes"
            raise ConfigError(f"{given} given without --link RATE, for which the rate per second is predicted")
        return None
    if weight is None:
        raise ConfigError("--link given without the size of the model; give --parameters or --model-bytes")
    return Link(weight, rate("--link", link), 0.0 if latency is None else duration("--latency", latency, zero=True))


def _meaning(wish: "Wish") -> str | None:
    """What the last column is."""
    if wish.link is None:
        return None
    return (
        "per second: -ln(1 - rate) over the round's time, which is the latency plus the bytes of each turn's busiest "
        f"node over {wish.link.rate_bit_s / 1e6:g} Mbit/s; computation, the same on all graphs, is not in it"
    )


def _table(entries: "list[Entry]", wish: "Wish") -> Table:
    table = Table(box=None, header_style="bold")
    for column, side in (("", "right"), ("graph", "left")):
        table.add_column(column, justify=side, no_wrap=True)  # type: ignore[arg-type]
    numbers = ["messages", "gap", "gamma", "n_W", "learning rate", "rate per round", "stable below"]
    for column in numbers + (["round", "rate per second"] if wish.link is not None else []):
        table.add_column(column, justify="right")
    for place, entry in enumerate(entries, start=1):
        timed = [] if entry.round_s is None else [f"{1e3 * entry.round_s:.4g} ms", _number(entry.score)]
        table.add_row(
            str(place),
            entry.name,
            str(entry.messages),
            f"{max(entry.gap, 0):.4f}",
            f"{entry.gamma:.4g}",
            f"{entry.neighbors:.4g}",
            f"{entry.learning_rate:.4g}",
            _number(entry.rate),
            f"{entry.largest_stable:.4g}" if isfinite(entry.largest_stable) else "2",
            *timed,
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _row(place: int, entry: "Entry") -> dict[str, Any]:
    numbers = {
        "messages": entry.messages,
        "spectral_gap": entry.gap,
        "gamma": entry.gamma,
        "effective_neighbors": entry.neighbors,
        "lr": entry.learning_rate,
        "rate": entry.rate,
        "largest_stable_lr": entry.largest_stable,
        "round_s": entry.round_s,
        "score": entry.score,
    }
    finite = {
        key: None if isinstance(value, float) and not isfinite(value) else value for key, value in numbers.items()
    }
    return {"place": place, "name": entry.name, **finite}
