"""Pictures of a topology as matplotlib figures: its graph, or its mixing matrix, for each of some turns a frame.

In the graph a line is as wide as its weight, and has an arrow where the weight of the other direction differs; what a
node keeps for itself is not drawn. In the matrix, row i holds the weights that node i applies to what it receives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection, LineCollection, PolyCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.sparse import coo_array

from decentral.topology.inline_svg import ACCENT, INK, RC
from decentral.topology.layout import Layout, layout
from decentral.topology.mixing import MixingMatrix
from decentral.topology.stochastic import Floats
from decentral.topology.topology import Topology

DRAWN_NODES = 150
DRAWN_EDGES = 2500
"""Above these the picture of a graph says nothing, and the matrix is drawn."""

FRAMES = 8
"""So many turns of a schedule are drawn."""

FAINT_DEGREE = 3
"""Up to so many links per node a turn shows faintly those that it does not use."""

FINE: Any = {"apart": 0.012, "clear": 0.01, "sparse_degree": 7.0}
"""What of a layout reads well in pixels, which are finer than the dots of a terminal."""

CELLS = 400
"""Rows of a drawn matrix, at most: of a larger one several share a cell, which shows their largest weight."""

NUMBERED_CELLS = 8
"""Up to this many nodes the entries of a matrix are written out."""

MARGIN = 1.18
"""Half the side of a graph's frame, whose nodes stand between -1 and 1."""

_COLORS = ListedColormap(matplotlib.colormaps["YlGnBu"](np.linspace(0.2, 1, 256)), "weights").with_extremes(bad="white")


@dataclass(frozen=True)
class Sheet:
    """How the frames of a figure are laid out, in inches.

    Args:
        frame: the side of one.
        columns: frames in a row, at most.
        titled: whether there are words: a heading, and the frames' turns.
    """

    frame: float
    columns: int
    titled: bool = True


def drawable(topology: Topology) -> bool:
    """Whether the graph itself can be drawn."""
    return topology.nodes <= DRAWN_NODES and len(topology.edges) <= DRAWN_EDGES


@matplotlib.rc_context(RC)
def figure_of(topology: Topology, matrix: bool = False, frames: int = FRAMES, sheet: Sheet | None = None) -> Figure:
    """The picture of a topology, of its matrix where that is asked for or the graph is too large to draw.

    Args:
        topology: what to draw.
        matrix: draw the mixing matrix.
        frames: how many turns, at most: the first ones.
        sheet: the size of things; it suits the number of frames unless given.
    """
    turns = range(min(topology.schedule.period or frames, frames))
    matrices = [topology.schedule.matrix(turn) for turn in turns]
    as_matrix = matrix or not drawable(topology)
    sheet = sheet or Sheet(5.0 if len(turns) == 1 else 2.9, 4)
    figure, frames_of = _frames(len(turns), sheet, bar=as_matrix)
    if sheet.titled:
        _write_heading(figure, topology, len(turns), as_matrix and not matrix)
        for turn, axes in zip(turns, frames_of, strict=True):
            if len(turns) > 1:
                axes.set_title(f"turn {turn}", color=INK, size=9, pad=4)
    if as_matrix:
        _draw_matrices(figure, frames_of, matrices, sheet)
    else:
        _draw_graphs(frames_of, topology, matrices, sheet)
    return figure


def words(topology: Topology) -> str:
    """What is drawn, in words."""
    links = f"{topology.nodes:,} nodes, {len(topology.edges):,} links"
    period = topology.schedule.period
    if period == 1:
        return links
    return f"{links}, " + ("drawn anew in every turn" if period is None else f"{period} turns over and over")


def _frames(count: int, sheet: Sheet, bar: bool) -> tuple[Figure, list[Axes]]:
    """A figure with square frames, and with room for words and a color bar."""
    columns = min(count, sheet.columns)
    rows = ceil(count / columns)
    top = 0.62 if sheet.titled else 0.3 if bar else 0.0
    caption = 0.28 if sheet.titled and count > 1 else 0.0
    ticks = 0.66 if bar else 0.0
    across, down = sheet.frame + ticks, sheet.frame + caption + ticks
    width, height = columns * across + (0.85 if bar else 0.0), top + rows * down
    figure, found = Figure(figsize=(width, height)), []
    for number in range(count):
        row, column = divmod(number, columns)
        left, bottom = column * across + ticks, height - top - row * down - caption - sheet.frame
        place = (left / width, bottom / height, sheet.frame / width, sheet.frame / height)
        found.append(figure.add_axes(place, frameon=bar))
    return figure, found


def _write_heading(figure: Figure, topology: Topology, turns: int, too_large: bool) -> None:
    width, height = figure.get_size_inches()
    name = topology.name if len(topology.name) < 40 else f"...{topology.name[-37:]}"
    parts = [words(topology)]
    if topology.schedule.period is None or turns < topology.schedule.period:
        parts.append(f"the first {turns} are shown")
    if too_large:
        parts.append("the mixing matrix, since the graph is too large to draw")
    place: Any = {"color": INK, "va": "top", "ha": "left"}
    figure.text(0.16 / width, 1 - 0.12 / height, name, size=12, weight="bold", **place)
    figure.text(0.16 / width, 1 - 0.36 / height, "; ".join(parts), size=8.5, **place)


def _draw_graphs(frames: Sequence[Axes], topology: Topology, matrices: Sequence[MixingMatrix], sheet: Sheet) -> None:
    drawn = layout(topology.graph, **FINE)
    arcs = [_arcs(matrix) for matrix in matrices]
    heaviest = max((float(weights.max(initial=0)) for _, weights in arcs), default=0.0) or 1.0
    most = max(len(pairs) for pairs, _ in arcs)
    scale = (sheet.frame / 5) ** 0.5 * float(np.clip((40 / max(most, 1)) ** 0.55, 0.12, 1))
    radius = _radius(drawn.points)
    for axes, (pairs, weights) in zip(frames, arcs, strict=True):
        axes.set(xlim=(-MARGIN, MARGIN), ylim=(MARGIN, -MARGIN), xticks=(), yticks=())
        widths = (0.5 + 4.5 * weights / heaviest) * scale
        if len(matrices) > 1 and len(topology.edges) <= FAINT_DEGREE * topology.nodes:
            others = [_curve(drawn, i, j) for i, j in topology.edges]
            axes.add_collection(LineCollection(others, linewidths=0.6, colors=INK, alpha=0.16))
        _draw_arcs(axes, drawn, pairs, widths, radius)
        _draw_nodes(axes, drawn.points, radius, sheet.frame)


def _arcs(matrix: MixingMatrix) -> tuple[list[tuple[int, int, bool]], Floats]:
    """Sender, receiver and whether it is one-way, with the weight; an edge of equal weights stands there once."""
    weights = {(int(j), int(i)): float(w) for i, j, w in zip(*_entries(matrix), strict=True) if i != j}
    kept = {pair: w for pair, w in weights.items() if pair[0] < pair[1] or weights.get(pair[::-1]) != w}
    arcs = [(i, j, weights.get((j, i)) != w) for (i, j), w in kept.items()]
    return arcs, np.array(list(kept.values()))


def _entries(matrix: MixingMatrix) -> tuple[Any, Any, Floats]:
    stored: coo_array = matrix.sparse.tocoo()
    return stored.row, stored.col, stored.data


def _radius(points: Floats) -> float:
    """A node's, so that no two touch."""
    if len(points) == 1:
        return 0.12
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1)
    return float(np.clip(min(0.34 * np.median(nearest), max(0.6 * nearest.min(), 0.052)), 0.026, 0.115))


def _draw_arcs(axes: Axes, drawn: Layout, arcs: list[tuple[int, int, bool]], widths: Floats, radius: float) -> None:
    both = {(i, j) for i, j, _ in arcs} & {(j, i) for i, j, _ in arcs}
    curves = [_curve(drawn, i, j, radius if (i, j) in both else 0.0) for i, j, _ in arcs]
    alpha = float(np.clip((60 / max(len(arcs), 1)) ** 0.4, 0.25, 0.75))
    axes.add_collection(LineCollection(curves, linewidths=widths, colors=INK, alpha=alpha, capstyle="butt"))
    directed = zip(curves, widths.tolist(), (one_way for _, _, one_way in arcs), strict=True)
    heads = [_head(curve, radius, 0.035 + 0.012 * width) for curve, width, one_way in directed if one_way]
    axes.add_collection(PolyCollection(heads, facecolors=INK, linewidths=0, zorder=1.5))


def _curve(drawn: Layout, i: int, j: int, by: float = 0.0) -> Floats:
    """The points of an edge, bent to its right-hand side, so that the two directions stay apart."""
    straight = not by and (min(i, j), max(i, j)) not in drawn.bends
    curve = drawn.curve(i, j, 2 if straight else 25)
    along = curve[-1] - curve[0]
    across = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-12)
    t = np.linspace(0, 1, len(curve))[:, None]
    return np.asarray(curve + 4 * t * (1 - t) * 0.6 * by * across)


def _head(curve: Floats, radius: float, size: float) -> Floats:
    """`(3, 2)`: an arrow's head that touches the node where the curve ends."""
    away = np.linalg.norm(curve - curve[-1], axis=1)
    tip_at = int(np.argmax(away <= radius))
    along = curve[tip_at] - curve[max(tip_at - 3, 0)]
    along = along / max(float(np.linalg.norm(along)), 1e-12)
    tip = curve[-1] - radius * along
    across = np.array([-along[1], along[0]])
    return np.array([tip, tip - size * along + size / 2 * across, tip - size * along - size / 2 * across])


def _draw_nodes(axes: Axes, points: Floats, radius: float, side: float) -> None:
    look: Any = {"units": "xy", "offsets": points, "transOffset": axes.transData, "facecolors": ACCENT, "linewidths": 0}
    axes.add_collection(EllipseCollection([2 * radius], [2 * radius], [0], zorder=2, **look))
    digits = len(str(len(points) - 1))
    size = 2 * radius * side * 72 / (2 * MARGIN) * (0.58 if digits == 1 else 0.46 if digits == 2 else 0.36)
    if size >= 4:
        for node, (x, y) in enumerate(points):
            axes.text(x, y, str(node), ha="center", va="center_baseline", size=size, color="white", weight="bold")


def _draw_matrices(figure: Figure, frames: Sequence[Axes], matrices: Sequence[MixingMatrix], sheet: Sheet) -> None:
    images = [_image(matrix) for matrix in matrices]
    norm = Normalize(0, max(float(np.nanmax(image, initial=0)) for image in images) or 1.0)
    for axes, image, matrix in zip(frames, images, matrices, strict=True):
        _draw_matrix(axes, image, matrix.n, norm)
    for axes in frames[:: sheet.columns]:
        axes.set_ylabel("receiving node", color=INK)
    for axes in frames[-min(sheet.columns, len(frames)) :]:
        axes.set_xlabel("sending node", color=INK)
    at = frames[min(sheet.columns, len(frames)) - 1].get_position()
    width = float(figure.get_size_inches()[0])
    bar = figure.colorbar(
        ScalarMappable(norm, _COLORS), cax=figure.add_axes((at.x1 + 0.16 / width, at.y0, 0.14 / width, at.height))
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=INK, labelcolor=INK, width=0.6)
    bar.ax.set_title("weight", color=INK, size=8.5, loc="left")


def _draw_matrix(axes: Axes, image: Floats, nodes: int, norm: Normalize) -> None:
    limits = (-0.5, nodes - 0.5, nodes - 0.5, -0.5)
    axes.imshow(image, cmap=_COLORS, norm=norm, extent=limits, interpolation="nearest")
    axes.tick_params(color=INK, labelcolor=INK, width=0.6)
    for spine in axes.spines.values():
        spine.set(color=INK, linewidth=0.6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    if nodes <= NUMBERED_CELLS:
        for (i, j), weight in np.ndenumerate(image):
            if np.isfinite(weight):
                ink = "white" if norm(weight) > 0.55 else "black"
                axes.text(j, i, f"{weight:.2g}".lstrip("0") or "0", ha="center", va="center", size=8, color=ink)


def _image(matrix: MixingMatrix) -> Floats:
    """W, NaN where nothing is stored; of a large one the largest of several entries in each cell."""
    block = ceil(matrix.n / CELLS)
    side = ceil(matrix.n / block)
    rows, columns, values = _entries(matrix)
    image = np.full((side, side), -1.0)
    np.maximum.at(image, (rows // block, columns // block), values)
    image[image <= 0] = np.nan
    return image
