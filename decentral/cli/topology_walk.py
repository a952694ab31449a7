"""`decentral topology walk NAME`: let tokens walk over a graph, and say how soon their visits are as they should be."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson
from decentral.cli.topology import loaded
from decentral.errors import ConfigError

if TYPE_CHECKING:
    import networkx as nx

    from decentral.topology.chains import Chain
    from decentral.topology.topology import Topology
    from decentral.topology.walk_analysis import Survey, WalkAnalysis

USUAL_ALPHA = 10.0
SHOWN_DISTANCES = 4
MOST_TARGET_BYTES = 2**22
FIGURES = (".svg", ".png")


@dataclass(frozen=True, eq=False)
class Walked:
    """One walk, what is known of it, and what its tokens did."""

    label: str
    chain: "Chain"
    on_target: bool
    """Whether its law is the target of the walk that was asked for."""
    analysis: "WalkAnalysis"
    survey: "Survey"


def walk(
    name: Annotated[str, typer.Argument(help="A name of `topology list`, or a file.", show_default=False)],
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=100_000, metavar="N", help="How many nodes.")] = 8,
    kernel: Annotated[
        str,
        typer.Option("--kernel", help="simple, weighted, metropolis, non-backtracking, srrw or hdt.", metavar="KERNEL"),
    ] = "srrw",
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", metavar="A", help="How strongly visits repel (srrw, hdt); 10 unless given."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="TARGET", help="uniform, degree, or a file of one number per node."),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=10_000_000, metavar="N", help="Visits of each token.")
    ] = 10_000,
    tokens: Annotated[
        int, typer.Option("--tokens", min=1, max=10_000, metavar="N", help="How many, each alone on the graph.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Of the tokens' paths.")] = 0,
    options: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="KEY=VALUE", help="An option of the graph, or weights=."),
    ] = None,
    json: AsJson = False,
    out: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="Draw the visits into an .svg or .png file.")
    ] = None,
) -> None:
    """Let tokens walk over a graph: how soon are their visits as they should be?"""
    if out is not None:
        _check_figure(out)
    _, topology = loaded(name, nodes, options or ())
    asked, others = _chains(topology, kernel, alpha, target)
    walks = _walked([asked, *others], steps, tokens, seed)
    if out is not None:
        _draw(walks, topology, seed, out)
    if json:
        document = {"name": topology.name, "nodes": topology.nodes, "edges": len(topology.edges), "seed": seed}
        print_json(document | {"target": asked.target.tolist(), "tokens": tokens, "walks": list(map(_told, walks))})
    else:
        _print(walks, topology)


def _chains(
    topology: "Topology", kernel: str, alpha: float | None, target: str | None
) -> tuple["Chain", list["Chain"]]:
    """The walk that is asked for, and those to compare it with: itself without memory, and the simple walk."""
    from decentral.topology.chains import chain
    from decentral.topology.walks import Walk

    graph = _with_weights(topology)
    plain = Walk(kernel)
    asked = Walk(kernel, (USUAL_ALPHA if plain.remembers else 0.0) if alpha is None else alpha)
    wanted = target if target in (None, "uniform", "degree") else _numbers(Path(str(target)))
    first = chain(graph, asked, wanted)  # type: ignore[arg-type]
    others = [chain(graph, asked.base, first.target)] if asked.remembers else []
    return first, others + ([chain(graph, Walk("simple"))] if kernel != "simple" else [])


def _with_weights(topology: "Topology") -> "nx.Graph":
    """The links, weighted by the mixing matrix where that is one for all turns.

    Raises:
        ConfigError: a link goes one way only.
    """
    graph = topology.graph.copy()
    if topology.schedule.period != 1:
        return graph
    entries = topology.schedule.matrix(0).sparse.tocoo()
    weights = dict(
        zip(zip(entries.row.tolist(), entries.col.tolist(), strict=True), entries.data.tolist(), strict=True)
    )
    for i, j in topology.edges:
        if (i, j) not in weights or (j, i) not in weights:
            raise ConfigError(
                f"{topology.name} is directed, with the edge {i}-{j} one way only; a walk goes both ways along an edge "
                "and needs an undirected graph"
            )
        graph.edges[i, j]["weight"] = weights[i, j]
    return graph


def _numbers(path: Path) -> list[float]:
    """The numbers of a target file: one a line, `#` begins a comment."""
    if not path.is_file():
        raise ConfigError(f"--target {path}: no such file; it is uniform, degree, or a file of one number per node")
    with path.open("rb") as file:
        content = file.read(MOST_TARGET_BYTES + 1)
    numbers: list[float] = []
    for number, line in enumerate(content[:MOST_TARGET_BYTES].decode("utf-8", "replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        try:
            numbers += [float(text)] if text else []
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: found {text[:40]!r}; required: one number, 0 < it < inf") from error
    if len(content) > MOST_TARGET_BYTES:
        raise ConfigError(f"{path} is larger than {MOST_TARGET_BYTES // 2**20} MB; required: one number per node")
    return numbers


def _walked(chains: list["Chain"], steps: int, tokens: int, seed: int) -> list[Walked]:
    import numpy as np

    from decentral.topology.walk_analysis import analyze, logarithmic_marks, survey

    target, marks = chains[0].target, logarithmic_marks(steps)
    return [
        Walked(
            _label(chain),
            chain,
            bool(np.allclose(chain.target, target, rtol=1e-9, atol=0)),
            analyze(chain),
            survey(chain, steps, marks, tokens, seed, target),
        )
        for chain in chains
    ]


def _label(chain: "Chain") -> str:
    return f"{chain.walk.kernel}, alpha {chain.walk.alpha:g}" if chain.walk.remembers else chain.walk.kernel


def _predicted(one: Walked) -> list[float] | None:
    """The mean distances of the survey by the limit law, where the walk has one and it is about the target."""
    predicted = [one.analysis.distance(visits) for visits in one.survey.marks.tolist()]
    known = [distance for distance in predicted if distance is not None]
    return known if known and one.on_target else None


def _told(one: Walked) -> dict[str, Any]:
    """A walk for JSON; None stands for infinity and for what is not computed."""
    import numpy as np

    analysis, survey = one.analysis, one.survey
    low, high = np.quantile(survey.distances, [0.1, 0.9], axis=0)
    mixing = analysis.mixing
    return {
        "kernel": one.chain.walk.kernel,
        "alpha": one.chain.walk.alpha,
        "asks": one.chain.walk.asks,
        "on_target": one.on_target,
        "gap": analysis.gap,
        "mixing_time": mixing if mixing is not None and isfinite(mixing) else None,
        "mixing_time_exact": analysis.mixing_exact,
        "asymptotic_variance": analysis.variance,
        "cover_time": {
            "covered": survey.covered,
            "p10": survey.cover_quantile(0.1),
            "median": survey.cover_quantile(0.5),
            "p90": survey.cover_quantile(0.9),
        },
        "distance": {
            "visits": survey.marks.tolist(),
            "mean": survey.distances.mean(axis=0).tolist(),
            "p10": low.tolist(),
            "p90": high.tolist(),
            "predicted": _predicted(one),
        },
        "return_times": analysis.returns.tolist(),
        "share_of_visits": (survey.visits.sum(axis=0) / survey.visits.sum()).tolist(),
    }


def _print(walks: list[Walked], topology: "Topology") -> None:
    import numpy as np

    marks, asked = walks[0].survey.marks, walks[0].chain
    steps = int(marks[-1])
    columns = np.flatnonzero(np.isin(marks, [steps // 10**k for k in range(SHOWN_DISTANCES)])).tolist()
    table = Table(box=None, header_style="bold")
    table.add_column("walk", no_wrap=True)
    for title in (*(f"TV at {marks[at]:,}" for at in columns), "asymptotic variance", "visits to cover (10-90 %)"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in walks:
        variance = one.analysis.variance if one.on_target else None
        distances = one.survey.distances.mean(axis=0)[columns]
        table.add_row(
            one.label,
            *(f"{distance:.4f}" for distance in distances.tolist()),
            "-" if variance is None else f"{variance:.4g}",
            _cover(one.survey),
        )
    out, tokens = stdout(), len(walks[0].survey.visits)
    out.print(f"  {topology.name}: {topology.nodes} nodes, {len(topology.edges)} edges; {tokens} tokens, each alone")
    out.print(table)
    for line in _notes(walks, asked):
        out.print(line)


def _cover(survey: "Survey") -> str:
    middle, low, high = (survey.cover_quantile(share) for share in (0.5, 0.1, 0.9))
    if middle is None:
        return f"{survey.covered:.0%} covered"
    return f"{middle:,.0f} ({low:,.0f}-{'' if high is None else f'{high:,.0f}'})"


def _notes(walks: list[Walked], asked: "Chain") -> list[str]:
    base = walks[0].analysis
    lines = [
        "  TV: total variation between the shares of visits and the target, mean over the tokens; variance: of the "
        "shares,",
        "  summed over the nodes, times the steps, in the limit",
    ]
    if base.gap is not None:
        without = "without its memory, " if asked.walk.remembers else ""
        lines.append(f"  {without}mixing time to 1/4: {_mixing(base)}; spectral gap {base.gap:.4g}")
    if base.variance is not None:
        predicted = base.distance(int(walks[0].survey.marks[-1]))
        lines.append(f"  TV that the variance predicts at the last step: {predicted:.4f}")
    for one in walks:
        if not one.on_target:
            far = abs(one.chain.target - asked.target).sum() / 2
            lines.append(f"  {one.label} visits nodes by their degrees; its TV stays at {far:.4f}")
    if asked.walk.remembers:
        carried = f"{8 * asked.n:,} bytes in each message if the token carries all counts"
        lines.append(f"  each hop needs the {asked.walk.asks}: {carried}")
    return lines


def _mixing(analysis: "WalkAnalysis") -> str:
    if analysis.mixing is None:
        return "not computed"
    if not isfinite(analysis.mixing):
        return "never, for it is periodic"
    return f"{'' if analysis.mixing_exact else 'at most '}{analysis.mixing:,.0f} hops"


def _check_figure(out: Path) -> None:
    if out.suffix not in FIGURES:
        raise ConfigError(f"-o {out}: the suffix is {out.suffix!r}; required: {' or '.join(FIGURES)}")
    if not out.parent.is_dir():
        raise ConfigError(f"-o {out}: there is no folder {out.parent}; make it first")


def _draw(walks: list[Walked], topology: "Topology", seed: int, out: Path) -> None:
    from decentral.measure.atomic import write_atomically
    from decentral.measure.walk_figure import Curve, Visited, figure

    shown = [walks[0], *walks[-1:]] if len(walks) > 1 else walks
    target = walks[0].chain.target
    visited = [Visited(one.label, one.survey.visits[0]) for one in shown]
    curves = [Curve(one.label, one.survey.marks, one.survey.distances, _predicted(one)) for one in walks]
    write_atomically(out, figure(topology.graph, target, visited, curves, f"token 0 of seed {seed}", out.suffix[1:]))
