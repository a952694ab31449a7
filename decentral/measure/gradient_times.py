"""How long gradients take in virtual time, as the `clock:` section says it: models of compute time, and stragglers."""

from collections.abc import Callable, Iterator
from itertools import cycle, repeat
from math import exp, inf
from pathlib import Path

import numpy as np

from decentral import config
from decentral.config.clock import ConstantTime, ExponentialTime, LogNormalTime, SlowTime, TraceTime, TwoSpeedTime
from decentral.errors import ConfigError
from decentral.seeding import stream
from decentral.transport.clock import Spells

_TIMES = "slowdown", "from_s", "until_s", "every_s", "lasting_s"


def gradient_s_of(section: config.Clock, nodes: int) -> list[float]:
    """Seconds of a gradient, by node; 1 where a trace has them.

    Raises:
        ConfigError: not one for each node, or one that is negative.
    """
    if isinstance(section.varies, TraceTime):
        if "gradient_s" in section.model_fields_set:
            raise ConfigError("the trace has the seconds of gradients; leave gradient_s out", section.varies.path)
        return [1.0] * nodes
    each = section.gradient_s if isinstance(section.gradient_s, list) else [section.gradient_s] * nodes
    if len(each) != nodes or min(each) < 0:
        raise ConfigError(
            f"found {len(each)} times, the least {min(each, default=0):g} s; required: one for each of {nodes} nodes, "
            "none below 0",
            (*section.path, "gradient_s"),
        )
    return each


def factors_of(section: config.Clock, nodes: int, seed: int, folder: Path) -> dict[int, Iterator[float]]:
    """What each gradient of a node takes in units of its `gradient_s`, one after the other; empty for always 1.

    Raises:
        ConfigError: a trace that cannot be read, or is of other nodes.
    """
    varies = section.varies
    if isinstance(varies, ConstantTime):
        return {}
    if isinstance(varies, TraceTime):
        return traced(varies, nodes, folder)
    draw = _drawn(varies)
    return {node: _factors(draw, stream(seed, node, "gradient times")) for node in range(nodes)}


def _factors(draw: Callable[[np.random.Generator], float], random: np.random.Generator) -> Iterator[float]:
    return (draw(random) for _ in repeat(None))


def _drawn(
    varies: LogNormalTime | ExponentialTime | TwoSpeedTime,
) -> Callable[[np.random.Generator], float]:
    match varies:
        case LogNormalTime(sigma=sigma):
            return lambda random: exp(sigma * random.standard_normal() - sigma**2 / 2)
        case ExponentialTime(least=least):
            return lambda random: least + random.exponential(1 - least)
        case TwoSpeedTime(slowdown=slowdown, share=share):
            return lambda random: slowdown if random.random() < share else 1.0


def traced(varies: TraceTime, nodes: int, folder: Path) -> dict[int, Iterator[float]]:
    """The columns of a trace, by node, each from the top again at its end.

    Raises:
        ConfigError: it cannot be read, has something else in it, or has neither one column nor one for each node.
    """
    path, at = folder / varies.file, (*varies.path, "file")
    try:
        rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        table = [[float(number) for number in row] for row in rows]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{varies.file} cannot be read: {error}", at) from error
    except ValueError as error:
        raise ConfigError(f"{varies.file}: {error}; required: seconds, a line for each gradient", at) from error
    widths = {len(row) for row in table}
    if widths not in ({1}, {nodes}):
        raise ConfigError(
            f"the lines of {varies.file} have {', '.join(map(str, sorted(widths))) or 'no'} numbers; required: one in "
            f"each, or {nodes}, one for each node",
            at,
        )
    if not all(0 < seconds < inf for row in table for seconds in row):
        raise ConfigError(f"{varies.file} has a time that is not above 0 and finite", at)
    columns = [*zip(*table, strict=True)]
    return {node: cycle(columns[node % len(columns)]) for node in range(nodes)}


def times_slower(section: SlowTime, at: config.KeyPath) -> float:
    """How many times longer a straggler's gradients take while it is one; infinite where it stands still.

    Raises:
        ConfigError: cpu beside something else.
    """
    if section.cpu is None:
        return section.slowdown or inf
    if others := [name for name in _TIMES if getattr(section, name)]:
        raise ConfigError(f"found cpu and {', '.join(others)}; cpu holds all run long, and stands alone", at)
    return 1 / section.cpu


def spells_of(section: config.Interval, nodes: int, seed: int, at: config.KeyPath) -> Spells:
    """When something is the matter with a node.

    Raises:
        ConfigError: no such node, or times that do not fit together.
    """
    if section.node >= nodes:
        raise ConfigError(f"found node {section.node}; required: one of 0 to {nodes - 1}", (*at, "node"))
    until_s = inf if section.until_s is None else section.until_s
    if until_s <= section.from_s:
        raise ConfigError(f"found {until_s:g} s; required: later than from_s, {section.from_s:g} s", (*at, "until_s"))
    if (section.every_s is None) != (section.lasting_s is None):
        raise ConfigError("every_s and lasting_s belong together: give both for spells at random, or neither", at)
    if section.every_s is None or section.lasting_s is None:
        return Spells((section.from_s, until_s))
    random = stream(seed, section.node, ".".join(map(str, at)))
    return Spells.again_and_again(section.from_s, until_s, section.every_s, section.lasting_s, random)
