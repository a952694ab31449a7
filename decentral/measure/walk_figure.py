"""A picture of walks: the graph with the visits of each node, and how the visits approach the target."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

import matplotlib
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from decentral.topology.hops import Floats, Integers
from decentral.topology.layout import layout

RC: Any = {"svg.fonttype": "none", "svg.hashsalt": "decentral", "font.size": 9, "text.parse_math": False}
COLORS = ("#c2410c", "#2563eb", "#6b7280", "#059669")
DRAWN_NODES = 200
DRAWN_EDGES = 1500
"""A larger graph is drawn as a curve over its nodes instead."""
NUMBERED_NODES = 40
LAW_BELOW = 0.3
"""The limit law is drawn where it says less than this; above it says nothing."""
LEAST_AREA = 0.25
"""Of the largest node's: room for a number."""
LEAST_RATIO, MOST_RATIO = 1.1, 8.0
"""Between these, the color scale reaches to the largest ratio of visits to target."""


@dataclass(frozen=True, eq=False)
class Visited:
    """What one token did: `visits` (n,)."""

    label: str
    visits: Integers

    def ratios(self, target: Floats) -> Floats:
        """`(n,)` visits over what the target gives."""
        return np.asarray(self.visits / self.visits.sum() / target)


@dataclass(frozen=True, eq=False)
class Curve:
    """The total variation `distances` (R, C) of R tokens after `visits` (C,), and their mean by the limit law."""

    label: str
    visits: Integers
    distances: Floats
    predicted: Sequence[float] | None


@matplotlib.rc_context(RC)
def figure(
    graph: nx.Graph, target: Floats, visited: Sequence[Visited], curves: Sequence[Curve], whose: str, format: str
) -> bytes:
    """The picture as a file's content: one panel for each of `visited`, one for the curves.

    Args:
        graph: where they walk.
        target: `(n,)` shares.
        visited: one or two tokens.
        curves: one for each walk.
        whose: which token is shown.
        format: svg or png.
    """
    panels = len(visited)
    drawing = Figure(figsize=(3.5 * panels + 4.4, 4.1), layout="constrained")
    axes = drawing.subplots(1, panels + 1, width_ratios=[3.5] * panels + [4.1])
    if len(graph) <= DRAWN_NODES and graph.number_of_edges() <= DRAWN_EDGES:
        _graphs(drawing, axes[:panels], graph, target, visited)
    else:
        most = max(one.ratios(target).max() for one in visited)
        for panel, one in zip(axes[:panels], visited, strict=True):
            _ranked(panel, one.ratios(target), most)
    for panel, one in zip(axes[:panels], visited, strict=True):
        panel.set_title(f"{one.label}\n{one.visits.sum():,} visits, {whose}", fontsize=9)
    _distances(axes[panels], curves)
    content = io.BytesIO()
    drawing.savefig(content, format=format, dpi=150, metadata={"Date": None} if format == "svg" else None)
    return content.getvalue()


def _graphs(
    drawing: Figure, panels: Sequence[Axes], graph: nx.Graph, target: Floats, visited: Sequence[Visited]
) -> None:
    ratios = [np.clip(one.ratios(target), 1 / MOST_RATIO, MOST_RATIO) for one in visited]
    reach = max(LEAST_RATIO, *(2 ** float(np.abs(np.log2(one)).max()) for one in ratios))
    norm = TwoSlopeNorm(0, -log2(reach), log2(reach))
    for panel, ratio, one in zip(panels, ratios, visited, strict=True):
        _graph(panel, graph, one.visits / one.visits.max(), np.log2(ratio), norm)
    bar = drawing.colorbar(
        ScalarMappable(norm, "RdBu_r"), ax=list(panels), location="bottom", shrink=0.6, aspect=35, pad=0.01
    )
    bar.set_ticks([-log2(reach), 0, log2(reach)])
    bar.set_ticklabels([f"{1 / reach:.2g}", "1", f"{reach:.2g}"])
    bar.set_label("visits / target; a node's area: its visits")
    bar.outline.set_visible(False)


def _graph(axes: Axes, graph: nx.Graph, shares: Floats, colors: Floats, norm: TwoSlopeNorm) -> None:
    """Nodes of an area in proportion to `shares` (n,), the largest being 1."""
    drawn = layout(graph)
    lines = [drawn.curve(i, j, 24) for i, j in graph.edges if i != j]
    axes.add_collection(LineCollection(lines, colors="#9ca3af", linewidths=0.6, zorder=1))
    largest = min(420.0, 9000 / len(graph))
    sizes = np.maximum(shares, LEAST_AREA) * largest
    look: Any = {"cmap": "RdBu_r", "norm": norm, "edgecolors": "#374151", "linewidths": 0.6, "zorder": 2}
    axes.scatter(drawn.points[:, 0], drawn.points[:, 1], s=sizes, c=colors, **look)
    for node, (x, y) in enumerate(drawn.points if len(graph) <= NUMBERED_NODES else []):
        dark = abs(norm(colors[node]) - 0.5) > 0.35
        axes.text(x, y, str(node), ha="center", va="center_baseline", size=6, color="white" if dark else "#111827")
    axes.set(xlim=(-1.15, 1.15), ylim=(1.15, -1.15), aspect="equal")
    axes.axis("off")


def _ranked(axes: Axes, ratios: Floats, most: float) -> None:
    axes.plot(np.sort(ratios)[::-1], color=COLORS[0], linewidth=1.4)
    axes.axhline(1, color="#374151", linewidth=0.8, linestyle=":")
    axes.set(xlabel="nodes, most visited first", ylabel="visits / target", ylim=(0, 1.05 * most))
    axes.spines[["top", "right"]].set_visible(False)


def _distances(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve, color in zip(curves, COLORS, strict=False):
        low, high = np.quantile(curve.distances, [0.1, 0.9], axis=0)
        axes.fill_between(curve.visits, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(curve.visits, curve.distances.mean(axis=0), color=color, linewidth=1.6, label=curve.label)
        if curve.predicted:
            law = np.array(curve.predicted)
            close = law < LAW_BELOW
            axes.plot(curve.visits[close], law[close], color=color, linewidth=1, linestyle=":")
    axes.plot([], [], color="#374151", linewidth=1, linestyle=":", label="limit law")
    axes.set(xscale="log", yscale="log", xlabel="visits of a token", title="total variation to the target")
    axes.title.set_fontsize(9)
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda _value, _: ""))
    axes.grid(color="#9ca3af", alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left")
