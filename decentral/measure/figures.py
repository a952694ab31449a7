"""From data to SVG: curves of a comparison and pictures of its graphs.

Every function is pure and its output deterministic. What is drawn in ink becomes `currentColor` and the series have
middle tones, so that a figure stands on a light page and on a dark one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import networkx as nx
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from decentral.measure.comparison import TopologySummary
from decentral.measure.tables import byte_unit, in_loss, in_percent, said, tick
from decentral.topology.inline_svg import ACCENT, INK, RC, inline_svg

Floats = npt.NDArray[np.float64]

DRAWN_EDGES = 3000
DRAWN_NODES = 2000


@dataclass(frozen=True)
class Series:
    """One method over its seeds, and how it looks in every figure and in the table."""

    name: str
    color: str
    marker: str
    dashed: bool
    values: Mapping[str, Floats]
    """Per quantity of `TITLES` (seeds, evaluations); NaN where a run had ended, columns aligned by round or number."""
    failed: tuple[bool, ...]
    """For each seed, whether the run ended early."""


TITLES = {
    "rounds": "rounds",
    "steps": "steps of all nodes (visits)",
    "bytes": "{unit} sent per node",
    "seconds": "training time (seconds)",
    "accuracy": "test accuracy",
    "error": "test error",
    "test_loss": "test loss",
    "consensus": "consensus distance",
    "heterogeneity": "heterogeneity ζ²",
    "diversity": "gradient diversity",
    "disagreement": "disagreement",
    "spread": "accuracy range over nodes",
}
LOG_HEIGHT = {"error", "test_loss", "consensus", "heterogeneity", "diversity"}
PERCENT = {"accuracy", "error", "disagreement", "spread"}


@matplotlib.rc_context(RC)
def curves_svg(
    series: Sequence[Series],
    x: str,
    y: str,
    *,
    prefix: str,
    label: str,
    target: float | None = None,
    small: bool = False,
) -> str:
    """One quantity against another: per method the median over its seeds, with the band from lowest to highest.

    Both are taken at equal rounds, where more than half of the seeds still ran, x being the median there. A cross
    marks where a run failed. The height follows the runs that went through.

    Args:
        series: the methods.
        x: key of `TITLES`.
        y: key of `TITLES`; losses and distances get a log axis, on which zero has no place.
        prefix: starts every id in the figure; unique in the page.
        label: what a reader hears who does not see the figure.
        target: a horizontal line.
        small: one of several under a title each, whose legend another figure has.
    """
    columns = 2 if all(len(one.name) <= 26 for one in series) else 1
    size = (2.9, 2.0) if small else (4.7, 2.8 - 0.165 * (-len(series) // columns))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot(
        xscale="log" if _far_apart(series, x) else "linear", yscale="log" if y in LOG_HEIGHT else "linear"
    )
    drawn = [_draw(axes, one, x, y) for one in series]
    _limit(axes, series, x, y, target)
    for one in series:
        _cross_failures(axes, one, x, y)
    _furnish(axes, y, target)
    _name_axis(axes.xaxis, x)
    _name_axis(axes.yaxis, y)
    names = [one.name if len(one.name) < 46 else f"{one.name[:44]}…" for one in series]
    if small:
        axes.set_ylabel("log scale" if y in LOG_HEIGHT else "")
    else:
        figure.legend(drawn, names, loc="outside lower left", ncols=columns, frameon=False, labelcolor=INK)
    return inline_svg(figure, prefix, label)


@matplotlib.rc_context(RC)
def topology_svg(topology: TopologySummary, *, prefix: str, label: str) -> str:
    """A graph of at most `DRAWN_NODES`, with lines as wide as their weight, at most `DRAWN_EDGES` evenly chosen ones.

    `prefix` and `label` are those of `curves_svg`.
    """
    figure = Figure(figsize=(2.7, 2.7))
    axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=(), yticks=(), xlim=(-1.13, 1.13), ylim=(-1.13, 1.13))
    places = _places(topology)
    edges = topology.edges[:: -(-len(topology.edges) // DRAWN_EDGES) or 1]
    weights = np.array([abs(weight) for _, _, weight in edges])
    thin = float(np.clip((60 / max(len(edges), 1)) ** 0.5, 0.2, 1))
    widths = thin * (0.4 + 1.8 * weights / weights.max(initial=1e-12))
    axes.add_collection(
        LineCollection([places[[i, j]] for i, j, _ in edges], linewidths=widths, colors=INK, alpha=0.6 * thin**0.5)
    )
    numbered = topology.nodes <= 20
    size = 150 if numbered else max(6.0, 2600 / topology.nodes)
    axes.scatter(places[:, 0], places[:, 1], s=size, c=ACCENT, zorder=2, linewidths=0)
    for node, (x, y) in enumerate(places if numbered else []):
        axes.text(x, y, str(node), ha="center", va="center_baseline", size=8, color="white", weight="bold")
    return inline_svg(figure, prefix, label)


def _draw(axes: Axes, one: Series, x: str, y: str) -> Line2D:
    at, low, middle, high = _band(one, x, y, least=0 if axes.get_xscale() == "log" else -1)
    axes.fill_between(at, low, high, color=one.color, alpha=0.16, linewidth=0)
    dashes = (0, (4, 1.6)) if one.dashed else "-"
    look: Any = {"color": one.color, "marker": one.marker, "markersize": 4, "markevery": max(1, len(at) // 8)}
    return axes.plot(at, middle, linewidth=1.6, linestyle=dashes, **look)[0]


def _visible(values: Floats, y: str) -> npt.NDArray[np.bool_]:
    shown: npt.NDArray[np.bool_] = np.isfinite(values) & ((values > 0) | (y not in LOG_HEIGHT))
    return shown


def _band(one: Series, x: str, y: str, least: float) -> tuple[Floats, Floats, Floats, Floats]:
    """x above `least`, lowest, median and highest y, at the rounds that more than half of the seeds reached."""
    shown = _visible(one.values[y], y) & (one.values[x] > least)
    most = 2 * shown.sum(axis=0) > len(shown)
    across, heights = (np.where(shown, one.values[key], np.nan)[:, most] for key in (x, y))
    middle = np.nanmedian(heights, axis=0)
    return np.nanmedian(across, axis=0), np.nanmin(heights, axis=0), middle, np.nanmax(heights, axis=0)


def _cross_failures(axes: Axes, one: Series, x: str, y: str) -> None:
    shown = _visible(one.values[y], y)
    for seed, failed in enumerate(one.failed):
        if failed and shown[seed].any():
            last = np.flatnonzero(shown[seed])[-1]
            height = np.clip(one.values[y][seed, last], *axes.get_ylim())
            axes.plot(one.values[x][seed, last], height, "x", color=one.color, ms=7, mew=2, clip_on=False)


def _far_apart(series: Sequence[Series], x: str) -> bool:
    """Whether the methods' costs differ so much that only a log axis shows them all."""
    costs = [cost for one in series if (cost := np.nan_to_num(one.values[x]).max(initial=0)) > 0]
    return x != "rounds" and bool(costs) and max(costs) > 5 * min(costs)


def _limit(axes: Axes, series: Sequence[Series], x: str, y: str, target: float | None) -> None:
    pairs = [(run, failed) for one in series for run, failed in zip(one.values[y], one.failed, strict=True)]
    shown = [(run[_visible(run, y)], failed) for run, failed in pairs if _visible(run, y).any()]
    kept = [run for run, failed in shown if not failed] or [run for run, _ in shown]
    if not kept:
        return
    heights = np.concatenate([*kept, [] if target is None else [target]])
    # Accuracies of the first rounds say little: the axis starts a little below where the runs end.
    floor = min([run[-1] for run in kept] + [target or 1.0]) - 0.2 if y == "accuracy" else -np.inf
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(np.array([max(heights.min(), floor), heights.max()]))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.1
    bottom, top = scale.inverted().transform(np.array([low - margin, high + margin]))
    axes.set_ylim(bottom, top)
    if axes.get_xscale() == "log":
        within = [one.values[x][(one.values[y] >= bottom) & (one.values[x] > 0)] for one in series]
        axes.set_xlim(left=0.8 * min(places.min() for places in within if places.size))


def _furnish(axes: Axes, y: str, target: float | None) -> None:
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=INK, alpha=0.5)
    axes.tick_params(which="both", color=INK, labelcolor=INK, width=0.6)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    if target is not None:
        text = f"target\n{said(in_percent if y == 'accuracy' else in_loss, target)}"
        place: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.axhline(target, color=INK, linewidth=1, linestyle=":", alpha=0.8)
        axes.annotate(text, (1, target), (4, 0), color=INK, va="center", **place)


def _name_axis(axis: Axis, quantity: str) -> None:
    low, high = sorted(axis.get_view_interval())
    scale, unit = byte_unit(high) if quantity == "bytes" else (1.0, "")
    title = TITLES[quantity].format(unit=unit)
    if axis.get_scale() == "log":
        title += ", log scale"
        # So little of a log axis may hold but one of its usual ticks.
        few = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])
        axis.set_major_locator(few if high < 4 * low else LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=quantity == "rounds"))
    axis.set_label_text(title, color=INK)
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value / scale, percent=quantity in PERCENT)))


def _places(topology: TopologySummary) -> Floats:
    """Node positions (nodes, 2) in the unit square around 0; a circle wherever the graph has that symmetry."""
    graph = nx.Graph()
    graph.add_nodes_from(range(topology.nodes))
    graph.add_edges_from((i, j) for i, j, _ in topology.edges)
    hubs = [node for node, degree in graph.degree if degree == topology.nodes - 1 > 2]
    if all(graph.has_edge((i + 1) % topology.nodes, (j + 1) % topology.nodes) for i, j in graph.edges):
        places = nx.circular_layout(graph)
    elif len(hubs) == 1:
        places = {**nx.circular_layout([node for node in graph if node not in hubs]), hubs[0]: np.zeros(2)}
    elif topology.nodes <= 64 and nx.is_connected(graph):
        places = nx.kamada_kawai_layout(graph)
    else:
        places = nx.spring_layout(graph, seed=0, iterations=max(20, 30_000 // topology.nodes))
    found = np.array([places[node][::-1] for node in range(topology.nodes)], dtype=np.float64)
    found -= (found.max(axis=0) + found.min(axis=0)) / 2
    return np.divide(found, max(float(np.abs(found).max()), 1e-9))
