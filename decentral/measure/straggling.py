"""The stragglers of an experiment: in real processes, and in the virtual time of simulated ones."""

from collections.abc import Sequence
from math import inf

from decentral.config import Clock
from decentral.config.clock import SlowTime
from decentral.errors import ConfigError
from decentral.measure.gradient_times import spells_of
from decentral.training.straggling import Straggling
from decentral.transport.clock import Slowed


def straggling(
    stragglers: Sequence[SlowTime], least_s: float | None, node: int, nodes: int, seed: int
) -> Straggling | None:
    """How slow one node of real processes is made; None where it is as fast as it can be.

    Args:
        least_s: what each gradient takes at least.
        seed: what is random is drawn from it.

    Raises:
        ConfigError: there is no such node, or it would never go on.
    """
    slowed = []
    for index, each in enumerate(stragglers):
        at = each.path or ("stragglers", index)
        spells = spells_of(each, nodes, seed, at)
        if each.slowdown is None and each.until_s is None and each.every_s is None:
            problem = "stands still for ever; give it slowdown, until_s, or every_s and lasting_s"
            raise ConfigError(f"node {each.node} {problem}", at)
        if each.node == node:
            slowed.append(Slowed(spells, each.slowdown or inf))
    return Straggling(slowed, least_s or 0.0) if slowed or least_s else None


def with_stragglers(clock: Clock | None, stragglers: Sequence[SlowTime]) -> Clock | None:
    """A clock whose own stragglers are joined by the experiment's."""
    if clock is None or not stragglers:
        return clock
    return clock.model_copy(update={"stragglers": [*clock.stragglers, *stragglers]})
