"""The simulator that an experiment asks for: rounds alone, or with the virtual time of its `clock:` section."""

from collections.abc import Sequence

from decentral import config
from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.tokens import TokenMethod
from decentral.errors import ConfigError
from decentral.measure.comparison import Clock
from decentral.transport.clock import ExchangesInTime, LettersInTime, VirtualTime, Wire
from decentral.transport.driver import Driver, GradientAt
from decentral.transport.lockstep import LockstepDriver


def clock_of(experiment: config.Experiment) -> Clock:
    """The clock of a simulated run."""
    return "none" if experiment.clock is None else "virtual"


def virtual_time(section: config.Clock, nodes: int) -> VirtualTime:
    """What takes how long.

    Raises:
        ConfigError: not a time for each node, or links between nodes that there are not.
    """
    each = section.gradient_s if isinstance(section.gradient_s, list) else [section.gradient_s] * nodes
    if len(each) != nodes or min(each) < 0:
        raise ConfigError(
            f"found {len(each)} times, the least {min(each, default=0):g} s; required: one for each of {nodes} nodes, "
            "none below 0",
            (*section.path, "gradient_s"),
        )
    wires = {}
    for index, link in enumerate(section.links):
        low, high = sorted(link.between)
        if not 0 <= low < high < nodes:
            raise ConfigError(
                f"found a link between {low} and {high}; required: two of the nodes 0 to {nodes - 1}",
                (*section.path, "links", index, "between"),
            )
        wires[low, high] = _wire(link.latency_s, link.rate_bit_s)
    rest = _wire(section.latency_s, section.rate_bit_s)
    return VirtualTime(each, lambda i, j: wires.get((min(i, j), max(i, j)), rest))


def _wire(latency_s: float, rate_bit_s: float | None) -> Wire:
    return Wire(latency_s) if rate_bit_s is None else Wire(latency_s, rate_bit_s / 8)


def simulator(gradients: Sequence[GradientAt], algorithm: Algorithm, clock: config.Clock | None) -> Driver:
    """The driver of a simulated run."""
    if clock is None:
        return LockstepDriver(gradients)
    time = virtual_time(clock, len(gradients))
    if isinstance(algorithm, TokenMethod) and algorithm.route == "letters":
        return LettersInTime(gradients, time)
    return ExchangesInTime(LockstepDriver(gradients), time)
