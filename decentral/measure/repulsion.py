"""What alpha gains SA-SRRW on a report's own graph and visits: scalars walk there, beside what theory says of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import networkx as nx
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from decentral.measure.comparison import Comparison, MethodResult, TopologySummary
from decentral.measure.figures import Series
from decentral.measure.tables import printable, tick
from decentral.topology.chains import Chain, chain
from decentral.topology.inline_svg import INK, RC, inline_svg
from decentral.topology.walk_analysis import logarithmic_marks
from decentral.topology.walk_descent import Descent, descent
from decentral.topology.walks import Walk

TOKENS = 400
"""Their mean error is known to about a seventh."""
MOST_VISITS, MOST_NODES = 20_000, 500
"""Beyond either a page would take long to write."""


@dataclass(frozen=True)
class Gain:
    """One alpha: the mean squared error after the last visit, and its ratio to the least alpha's, as measured and told.

    Everything is words; `limit` is empty where theory has none.
    """

    name: str
    color: str
    error: str
    ratio: str
    limit: str


@dataclass(frozen=True)
class Repulsion:
    """One graph with the methods that differ in alpha there."""

    graph: str
    visits: int
    tokens: int
    a: float
    b: float
    gains: list[Gain]
    svg: Markup

    @property
    def of_formula(self) -> bool:
        """Whether theory says something: a < b."""
        return self.a < self.b

    @property
    def far(self) -> float:
        """gamma over beta at the last visit: the formula holds once it is large."""
        return float((self.visits + 1.0) ** (self.b - self.a))


def repulsions(comparison: Comparison, series: Sequence[Series]) -> list[Repulsion]:
    """One for each graph, and a and b, with several alphas.

    Args:
        series: the comparison's, of whom the colors are.
    """
    colors = {one.name: one.color for one in series}
    groups: dict[tuple[str, float, float], dict[float, MethodResult]] = {}
    for method in comparison.methods:
        if (walk := method.repelled) is not None and method.topology is not None and walk.gamma_decay < 1:
            groups.setdefault((method.topology, walk.gamma_decay, walk.decay), {}).setdefault(walk.alpha, method)
    return [
        _repulsion(comparison, graph, a, b, dict(sorted(group.items())), colors, f"repulsion-{place}")
        for place, ((graph, a, b), group) in enumerate(groups.items())
        if len(group) > 1 and comparison.topologies[graph].nodes <= MOST_NODES
    ]


def _repulsion(
    comparison: Comparison,
    graph: str,
    a: float,
    b: float,
    methods: dict[float, MethodResult],
    colors: dict[str, str],
    prefix: str,
) -> Repulsion:
    visits = min(MOST_VISITS, comparison.rounds * max(m.steps_per_round or 1 for m in methods.values()))
    marks = logarithmic_marks(visits)
    found = [
        descent(_walk(comparison.topologies[graph], alpha), a, b, marks, TOKENS, comparison.seeds[0])
        for alpha in methods
    ]
    drawn = {one.alpha: colors[printable(methods[one.alpha].name)] for one in found}
    label = (
        f"Mean squared error of scalar tokens against visits, with the formula, for alpha {', '.join(_alphas(found))}"
    )
    figure = descent_svg(found, list(drawn.values()), prefix=prefix, label=label)
    gains = [_gain(one, found[0], drawn[one.alpha]) for one in found]
    return Repulsion(printable(graph), visits, TOKENS, a, b, gains, Markup(figure))


def _walk(topology: TopologySummary, alpha: float) -> Chain:
    graph = nx.Graph([(i, j) for i, j, _ in topology.edges])
    graph.add_nodes_from(range(topology.nodes))
    return chain(graph, Walk("srrw", alpha))


def _alphas(found: Sequence[Descent]) -> list[str]:
    return [f"{one.alpha:g}" for one in found]


def _gain(one: Descent, base: Descent, color: str) -> Gain:
    error, doubt = float(one.mean[-1]), float(one.doubt[-1])
    limit = ""
    if one.limit is not None and base.limit is not None:
        limit = f"{one.limit[-1] / base.limit[-1]:.2g}"
    measured = f"{error:.1e} ± {100 * doubt / error:.0f}%" if error else "0"
    return Gain(f"{one.alpha:g}", color, measured, f"{error / base.mean[-1]:.2g}", limit)


@matplotlib.rc_context(RC)
def descent_svg(found: Sequence[Descent], colors: Sequence[str], *, prefix: str, label: str) -> str:
    """The mean squared errors with twice their standard errors, and the formula of each dashed.

    Args:
        found: one for each alpha.
        colors: theirs.
        prefix: starts every id in the figure; unique in the page.
        label: what a reader hears who does not see the figure.
    """
    figure = Figure(figsize=(4.7, 2.9), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    lines = []
    for one, color in zip(found, colors, strict=True):
        lines += axes.plot(one.visits, one.mean, color=color, linewidth=1.6)
        low = (one.mean - one.doubt).clip(min=one.mean / 10)
        axes.fill_between(one.visits, low, one.mean + one.doubt, color=color, alpha=0.16, linewidth=0)
        if one.limit is not None:
            axes.plot(one.visits, one.limit, color=color, linewidth=1, linestyle=(0, (3, 2)))
    names = [f"alpha {alpha}" for alpha in _alphas(found)]
    if found[0].limit is not None:
        lines.append(Line2D([], [], color=INK, linewidth=1, linestyle=(0, (3, 2))))
        names.append("formula")
    figure.legend(lines, names, loc="outside lower left", ncols=3, frameon=False, labelcolor=INK)
    look: Any = {"color": INK}
    axes.set_xlabel("visits, log scale", **look)
    axes.set_ylabel("mean squared error, log scale", **look)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=INK, alpha=0.5)
    axes.tick_params(which="both", color=INK, labelcolor=INK, width=0.6)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(lambda value, _: tick(value, percent=False))
    return inline_svg(figure, prefix, label)
