"""The stragglers of an experiment: in real processes, and in the virtual time of simulated ones."""

from collections.abc import Sequence

from decentral.config import Clock
from decentral.config.clock import SlowTime
from decentral.errors import ConfigError
from decentral.measure.gradient_times import spells_of, times_slower
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
        slower = times_slower(each, at)
        if each.cpu is not None:  # the operating system's work
            continue
        if each.slowdown is None and each.until_s is None and each.every_s is None:
            problem = "stands still for ever; give it slowdown, until_s, or every_s and lasting_s"
            raise ConfigError(f"node {each.node} {problem}", at)
        if each.node == node:
            slowed.append(Slowed(spells, slower))
    return Straggling(slowed, least_s or 0.0) if slowed or least_s else None


def cpu_share_of(stragglers: Sequence[SlowTime], node: int) -> float | None:
    """The share of one core that a real process's node gets; None for all that there is."""
    return min((each.cpu for each in stragglers if each.node == node and each.cpu is not None), default=None)


def with_stragglers(clock: Clock | None, stragglers: Sequence[SlowTime]) -> Clock | None:
    """A clock whose own stragglers are joined by the experiment's."""
    if clock is None or not stragglers:
        return clock
    return clock.model_copy(update={"stragglers": [*clock.stragglers, *stragglers]})
