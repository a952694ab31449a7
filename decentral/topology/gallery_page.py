"""The gallery as a page: one HTML file that stands alone, with a card for each family."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from decentral import config
from decentral.errors import ConfigError
from decentral.topology import gallery
from decentral.topology.analysis import Analysis, analyze
from decentral.topology.drawing import Sheet, figure_of, words
from decentral.topology.inline_svg import RC, inline_svg
from decentral.topology.topology import Topology

FARTHEST = 128
"""So many nodes more are tried, and all that are fewer, where a family does not come in the size that was asked for."""

CARD_FRAMES = 4


@dataclass(frozen=True)
class Card:
    """A family at one size.

    Args:
        name: in the gallery.
        summary: what it is.
        options: the keys of its section, each with its default, as text.
        nodes: the size that is shown.
        reason: why that is not the size asked for, or why there is none; else None.
        topology: what is shown; None where no size near the one asked for works.
        analysis: of the topology.
    """

    name: str
    summary: str
    options: Mapping[str, str]
    nodes: int
    reason: str | None
    topology: Topology | None
    analysis: Analysis | None


def cards(nodes: int) -> list[Card]:
    """Every family of the gallery at a size, or at the nearest one that it comes in."""
    return [_card(name, nodes) for name in gallery.names()]


def page(found: list[Card], nodes: int) -> str:
    """The HTML of all cards.

    Args:
        found: what to show.
        nodes: the size that was asked for.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("decentral.topology").joinpath("gallery.html.j2").read_text(encoding="utf-8")
    shown = [(card, Markup(_svg(card)), _facts(card)) for card in found]
    return environment.from_string(template).render(cards=shown, nodes=nodes)


def _card(name: str, nodes: int) -> Card:
    path = gallery.find(name, Path())
    summary, options, reason = gallery.summary(path), gallery.options(path), None
    for size in _sizes(nodes):
        try:
            topology = gallery.load(config.Topology(name=name), size, Path())
        except ConfigError as error:
            reason = reason or _cause(error, nodes)
            continue
        return Card(name, summary, _shown(options), size, reason, topology, analyze(topology))
    return Card(name, summary, _shown(options), nodes, reason, None, None)


def _sizes(nodes: int) -> Iterator[int]:
    """The size asked for, and then those around it, the nearest first."""
    yield nodes
    for distance in range(1, max(nodes, FARTHEST + 1)):
        if distance <= FARTHEST:
            yield nodes + distance
        if distance < nodes:
            yield nodes - distance


def _cause(error: ConfigError, nodes: int) -> str:
    """Of `topologies.davis.build failed: davis.py:12: ValueError: nodes=16; ...` what the file itself says."""
    return str(error).rpartition("ValueError: ")[2].removeprefix(f"nodes={nodes}; ")


def _shown(options: Mapping[str, inspect.Parameter]) -> dict[str, str]:
    return {
        name: "required" if parameter.default is parameter.empty else _default(parameter.default)
        for name, parameter in options.items()
    }


def _default(value: Any) -> str:
    return "unset" if value is None else str(value)


def _svg(card: Card) -> str:
    if card.topology is None:
        return ""
    turns = min(card.topology.schedule.period or CARD_FRAMES, CARD_FRAMES)
    sheet = Sheet(2.9 if turns == 1 else 1.45, 2, titled=False)
    figure = figure_of(card.topology, frames=CARD_FRAMES, sheet=sheet)
    with matplotlib.rc_context(RC):
        return inline_svg(figure, card.name, f"Picture of {card.name}: {words(card.topology)}")


def _facts(card: Card) -> dict[str, str]:
    one = card.analysis
    if one is None or card.topology is None:
        return {}
    degree = str(one.degree_min) if one.degree_min == one.degree_max else f"{one.degree_min} to {one.degree_max}"
    period = card.topology.schedule.period
    turns = {} if period == 1 else {"Turns": "drawn" if period is None else str(period)}
    return {
        "Nodes": f"{card.nodes:,}",
        "Links": f"{len(card.topology.edges):,}",
        "Degree": degree,
        "Diameter": f"{one.diameter:,}",
        "Spectral gap": f"{one.gap:.3g}",
        "Rounds": f"{one.rounds_to_thousandth:,.0f}".replace("inf", "never"),
        **turns,
    }
