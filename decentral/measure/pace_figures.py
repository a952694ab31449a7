"""Pictures of runs without rounds: how fast each node got on, and how stale what it used was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from decentral.measure.figures import Floats
from decentral.measure.tables import in_rate, tick
from decentral.topology.inline_svg import INK, RC, inline_svg

OLDEST = 127
"""The last place of a histogram of staleness, which stands for all that was older too."""
AGES = (0, 1, 2, 5, 10, 20, 50, OLDEST)
"""What the axis of staleness names, as far as it goes."""
FAR_APART = 5
"""How many times faster than the slowest node the fastest is where only a log axis shows both."""
FEW_NODES = 32
"""Up to which each is a dot of full size."""
LEFT_ROOM = 0.35
"""Share of the width that the name of a node takes."""
FEW_AGES = 20
"""Up to which they stand on a linear axis."""


@dataclass(frozen=True)
class Went:
    """How the nodes of one method got on, and how it looks in every figure."""

    name: str
    color: str
    marker: str
    paces: Floats
    """(nodes,) steps per second of each node that has any, the median over the seeds; NaN for the others."""
    uses: Floats
    """(ages,) how often something was used that was so many steps old, all nodes and seeds together."""

    @property
    def slowest(self) -> int:
        return int(np.nanargmin(self.paces))

    @property
    def shares(self) -> Floats:
        """Of all uses, (ages,)."""
        return np.asarray(self.uses / max(self.uses.sum(), 1))


@matplotlib.rc_context(RC)
def paces_svg(every: Sequence[Went], *, prefix: str, label: str) -> str:
    """A row for each method and in it a dot for each node, node 0 highest, with a line at the median one.

    Args:
        every: methods, each with the pace of some node.
        prefix: starts every id in the figure; unique in the page.
        label: what a reader hears who does not see the figure.
    """
    figure = Figure(figsize=(4.7, 0.75 + 0.44 * len(every)), layout="constrained")
    paces = np.concatenate([one.paces[np.isfinite(one.paces)] for one in every])
    is_log = bool(paces.min() > 0 and paces.max() > FAR_APART * paces.min())
    axes = figure.add_subplot(xscale="log" if is_log else "linear", ylim=(len(every) - 0.45, -0.55))
    _fit(axes, paces, is_log)
    for row, one in enumerate(every):
        _draw_nodes(axes, one, row)
    axes.set_yticks(range(len(every)), [_short(one.name) for one in every])
    _furnish(axes)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"steps per second of each node{', log scale' if is_log else ''}", color=INK)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, percent=False)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return inline_svg(figure, prefix, label)


@matplotlib.rc_context(RC)
def staleness_svg(every: Sequence[Went], *, prefix: str, label: str) -> str:
    """The share of uses by age, a line for each method; what was used never has no place on the log axis.

    `prefix` and `label` are those of `paces_svg`; each method has used something.
    """
    columns = 2 if all(len(one.name) <= 26 for one in every) else 1
    figure = Figure(figsize=(4.7, 2.5 - 0.165 * (-len(every) // columns)), layout="constrained")
    axes = figure.add_subplot(yscale="log")
    _fit_shares(axes, every)
    drawn = []
    for one in every:
        shares = np.where(one.uses > 0, one.shares, np.nan)
        size = 4 if len(shares) <= FEW_AGES else 2.5
        look: Any = {"color": one.color, "marker": one.marker, "markersize": size, "linewidth": 1.4}
        drawn += axes.plot(np.arange(len(shares)), shares, clip_on=False, zorder=3, **look)
    _furnish(axes)
    axes.set_xlabel("staleness", color=INK)
    axes.set_ylabel("share of uses, log scale", color=INK)
    names = [_short(one.name) for one in every]
    figure.legend(drawn, names, loc="outside lower left", ncols=columns, frameon=False, labelcolor=INK)
    return inline_svg(figure, prefix, label)


def _draw_nodes(axes: Axes, one: Went, row: int) -> None:
    nodes = len(one.paces)
    heights = row + np.linspace(-0.3, 0.3, nodes) if nodes > 1 else np.array([row])
    size = 18.0 if nodes <= FEW_NODES else max(3.0, 18.0 * FEW_NODES / nodes)
    middle = float(np.nanmedian(one.paces))
    axes.plot([middle, middle], [row - 0.36, row + 0.36], color=one.color, linewidth=1.4, alpha=0.55, zorder=2)
    axes.scatter(one.paces, heights, s=size, color=one.color, alpha=0.8, linewidths=0, zorder=3, clip_on=False)
    if one.paces[one.slowest] < 0.8 * middle:
        _name_slowest(axes, one, float(heights[one.slowest]))


def _name_slowest(axes: Axes, one: Went, height: float) -> None:
    """On its left, where no dot is, if there is room; on its right only where dots are few."""
    pace = float(one.paces[one.slowest])
    place = axes.transLimits.transform(axes.transScale.transform((pace, height)))[0]
    if place < LEFT_ROOM and len(one.paces) > FEW_NODES:
        return
    offset, side = (5, "left") if place < LEFT_ROOM else (-5, "right")
    look: Any = {"textcoords": "offset points", "ha": side, "va": "center_baseline", "color": INK, "size": 7.5}
    axes.annotate(f"node {one.slowest}: {in_rate(pace)[0]}", (pace, height), (offset, 0), **look)


def _fit(axes: Axes, paces: Floats, is_log: bool) -> None:
    """Room for all dots, and on a linear axis for zero."""
    low, high = float(paces.min()), float(paces.max())
    if is_log:
        axes.set_xlim(low / 1.3, high * 1.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    else:
        axes.set_xlim(0, 1.08 * high or 1)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _fit_shares(axes: Axes, every: Sequence[Went]) -> None:
    oldest = max(len(one.uses) for one in every) - 1
    least = min(float(one.shares[one.uses > 0].min()) for one in every)
    if oldest > FEW_AGES:
        axes.set_xscale("symlog", linthresh=2, linscale=0.7)
        axes.xaxis.set_major_locator(FixedLocator([age for age in AGES if age <= oldest]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_xlim(-0.02 * max(oldest, 1) if oldest <= FEW_AGES else -0.25, max(1.2, 1.04 * oldest))
    axes.set_ylim(0.7 * least, 1.2)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if least > 0.02 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda age, _: f"{age:.0f}" + ("+" if age == OLDEST else "")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: tick(share, percent=True)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _furnish(axes: Axes) -> None:
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=INK, alpha=0.5)
    axes.tick_params(which="both", color=INK, labelcolor=INK, width=0.6)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)


def _short(name: str) -> str:
    return name if len(name) < 30 else f"{name[:28]}…"
