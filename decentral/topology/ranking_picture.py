"""The picture of a ranking: the predicted rate over the learning rate, or bars where something else was ranked by."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from decentral.errors import ConfigError
from decentral.topology.ranking import Entry, Wish

SUFFIXES = (".svg", ".png")
NAMED = 10
"""Curves that have a color of their own; the others are gray."""

LEARNING_RATES = np.logspace(-3, 0, 100)


def check_target(path: Path) -> None:
    """Raise ConfigError unless a picture can be written there."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"-o {path}: the suffix is {path.suffix!r}; required: {' or '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"-o {path}: there is no folder {path.absolute().parent}; make it first")


@matplotlib.rc_context({"svg.hashsalt": "decentral", "font.size": 9, "text.parse_math": False})
def save(entries: Sequence[Entry], wish: Wish, title: str, path: Path) -> None:
    """Writes the picture as SVG or PNG."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    if wish.gamma is None and wish.link is None:
        _curves(figure, entries)
    else:
        _bars(figure, entries, wish)
    figure.suptitle(title)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _curves(figure: Figure, entries: Sequence[Entry]) -> None:
    axes = figure.subplots()
    colors = matplotlib.colormaps["tab10"]
    for place, entry in reversed(list(enumerate(entries))):
        rates = [entry.rates.rate(float(learning_rate)) for learning_rate in LEARNING_RATES]
        heights = [np.nan if rate is None else rate for rate in rates]
        named = place < NAMED
        label = f"{place + 1}. {entry.name}" if named else None
        color, width, above = (colors(place), 1.8, 3) if named else ("0.8", 1.0, 1)
        axes.plot(LEARNING_RATES, heights, color=color, linewidth=width, zorder=above, label=label)
        if named and entry.rate is not None and entry.rate > 0:
            axes.plot(entry.learning_rate, entry.rate, "o", color=color, markersize=4, zorder=above)
    axes.set(xscale="log", xlabel="learning rate", ylabel="rate: E||x||² shrinks by this share per round")
    axes.set_ylim(0, 1.08 * max([entry.rate for entry in entries if entry.rate], default=1))
    axes.set_xlim(min(entry.learning_rate for entry in entries) / 10, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    handles, labels = axes.get_legend_handles_labels()
    others = f"gray: {len(entries) - NAMED} more" if len(entries) > NAMED else None
    axes.legend(handles[::-1], labels[::-1], title=others, loc="upper left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _bars(figure: Figure, entries: Sequence[Entry], wish: Wish) -> None:
    figure.set_size_inches(9, max(3.0, 0.25 * len(entries) + 1.2))
    axes = figure.subplots()
    heights = [max(entry.score or 0.0, 0.0) for entry in entries]
    bars = axes.barh([entry.name for entry in entries], heights, color="#3b82d6")
    axes.bar_label(bars, [f"{height:.3g}" for height in heights], padding=3)
    axes.invert_yaxis()
    what = f"n_W at gamma {wish.gamma:g}" if wish.gamma is not None else "predicted -ln(1 - rate) per second"
    axes.set_xlabel(what)
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
