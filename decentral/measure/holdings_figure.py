"""The picture of who has what: classes by nodes, as bubbles where there are few and as a map of shares where many."""

import io
import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from decentral.measure.holdings import Holdings
from decentral.measure.tables import printable
from decentral.topology.inline_svg import ACCENT, INK, RC

Floats = NDArray[np.float64]

BUBBLES = (40, 30)
"""Nodes and classes up to which every pair is a bubble."""
MOST = 0.8
"""Share of all targets that the most frequent classes must have for the others to be drawn as one."""
CELL = 0.24
"""Inches of a bubble's cell."""
TITLE_CHARACTERS = 13
"""To an inch of the figure's width."""


@matplotlib.rc_context(RC)
def holdings_picture(held: Holdings, kind: str) -> bytes:
    """A standing picture on white: the samples of each node above, their classes below.

    Args:
        kind: svg or png.
    """
    counts, names = drawn_classes(held)
    width = float(np.clip(1.6 + CELL * len(held.nodes), 4.2, 11))
    height = float(np.clip(0.3 + CELL * len(names), 1.4, 7)) if names else 0.0
    lines = textwrap.wrap(title(held), int(TITLE_CHARACTERS * width))
    figure = Figure(figsize=(width, 1.5 + 0.18 * len(lines) + height), layout="constrained")
    if names:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[0.8, height])
        draw = _draw_bubbles if len(held.nodes) <= BUBBLES[0] and len(names) <= BUBBLES[1] else _draw_map
        draw(below, counts)
        _name_classes(below, names)
    else:
        above = below = figure.subplots()
    _draw_sizes(above, held)
    below.set_xlabel("node", color=INK)
    below.set_xticks(range(0, len(held.nodes), -(-len(held.nodes) // 20)))
    below.set_xlim(-0.6, len(held.nodes) - 0.4)
    figure.suptitle("\n".join(lines), x=0.02, ha="left", fontsize=9, color=INK)
    drawing = io.BytesIO()
    figure.savefig(drawing, format=kind, dpi=160, facecolor="white", metadata={"Date": None} if kind == "svg" else {})
    return drawing.getvalue()


def title(held: Holdings) -> str:
    """What the picture is of, in one line."""
    parts = [f"{printable(held.data)}, {held.partition}, seed {held.seed}: {held.samples:,} samples"]
    if held.label_distance is not None:
        parts.append(f"label distance {held.label_distance:.2f}")
    return ", ".join(parts)


def drawn_classes(held: Holdings) -> tuple[Floats, list[str]]:
    """Targets by node and class, `(nodes, drawn)`, and the classes' names.

    Where there are many classes, and a few hold nearly all, as letters do, those come first and the others are one.
    """
    names = [printable(name) for name in held.classes or ()]
    counts = np.array([node.counts or [] for node in held.nodes], dtype=np.float64)
    first = np.argsort(-counts.sum(axis=0), kind="stable")[: BUBBLES[1] - 1]
    if len(names) <= BUBBLES[1] or counts[:, first].sum() < MOST * counts.sum():
        return counts, names
    rest = counts.sum(axis=1) - counts[:, first].sum(axis=1)
    ordered = np.column_stack([rest, counts[:, first[::-1]]])
    return ordered, [f"{len(names) - len(first)} others", *(names[index] for index in first[::-1])]


def _draw_sizes(axes: Axes, held: Holdings) -> None:
    axes.bar(range(len(held.nodes)), [node.samples for node in held.nodes], width=0.72, color=ACCENT, alpha=0.85)
    axes.set_ylabel("samples", color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _plain(axes)


def _draw_bubbles(axes: Axes, counts: Floats) -> None:
    """A bubble's area is the count; the largest fills its cell."""
    node, label = np.nonzero(counts)
    sizes = counts[node, label]
    diameter = 72 * CELL * 0.92  # in points
    axes.scatter(node, label, s=diameter**2 * sizes / sizes.max(), c=ACCENT, alpha=0.85, linewidths=0)
    axes.set_ylim(-0.7, counts.shape[1] - 0.3)
    axes.grid(color=INK, alpha=0.1, linewidth=0.5)
    axes.set_axisbelow(True)
    _plain(axes)


def _draw_map(axes: Axes, counts: Floats) -> None:
    """The share of each class on each node, the node's own total being 1."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    drawn = axes.imshow(shares.T, aspect="auto", origin="lower", cmap="Blues", interpolation="nearest", vmin=0)
    bar = axes.figure.colorbar(drawn, ax=axes, pad=0.02, shrink=0.9)
    bar.set_label("share of the node's targets", color=INK)
    bar.outline.set_visible(False)
    _plain(axes)


def _name_classes(axes: Axes, names: list[str]) -> None:
    axes.set_ylabel("class", color=INK)
    if len(names) <= BUBBLES[1]:
        axes.set_yticks(range(len(names)), names)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))


def _plain(axes: Axes) -> None:
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=INK, alpha=0.5)
    axes.tick_params(color=INK, labelcolor=INK, width=0.6)
