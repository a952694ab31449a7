"""The simulator that an experiment asks for: rounds alone, or with the virtual time of its `clock:` section."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path

from decentral import config
from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.tokens import TokenMethod
from decentral.errors import ConfigError
from decentral.measure.comparison import Clock
from decentral.measure.gradient_times import factors_of, gradient_s_of, spells_of, times_slower
from decentral.seeding import stream
from decentral.transport.clock import (
    Away,
    EventLog,
    ExchangesInTime,
    FreeInTime,
    LettersInTime,
    Recorded,
    Slowed,
    VirtualTime,
    Wire,
)
from decentral.transport.driver import Driver, GradientAt
from decentral.transport.lockstep import LockstepDriver

EVENTS = "events.jsonl"
"""The event log's file in the folder of a run."""


def clock_of(experiment: config.Experiment) -> Clock:
    """The clock of a simulated run."""
    return "none" if experiment.clock is None else "virtual"


def virtual_time(
    section: config.Clock, nodes: int, seed: int = 0, folder: Path | None = None, log: EventLog | None = None
) -> VirtualTime:
    """What takes how long in one run.

    Args:
        seed: what is random is drawn from it.
        folder: where relative paths start; the current one unless given.
        log: where the run's events are written.

    Raises:
        ConfigError: what does not fit so many nodes, or a file that cannot be read or is of another run.
    """
    place = folder or Path()
    slowed: dict[int, list[Slowed]] = {}
    for index, each in enumerate(section.stragglers):
        at = each.path or (*section.path, "stragglers", index)
        spells = spells_of(each, nodes, seed, at)
        slowed.setdefault(each.node, []).append(Slowed(spells, times_slower(each, at)))
    away: dict[int, list[Away]] = {}
    for index, crash in enumerate(section.crashes):
        spells = spells_of(crash, nodes, seed, (*section.path, "crashes", index))
        away.setdefault(crash.node, []).append(Away(spells, crash.rejoin))
    wires, rest = _wires(section, nodes)
    return VirtualTime(
        gradient_s_of(section, nodes),
        (lambda i, j: wires.get((min(i, j), max(i, j)), rest)) if wires else (lambda i, j: rest),  # noqa: ARG005
        factors=factors_of(section, nodes, seed, place),
        slowed=slowed,
        away=away,
        draws=lambda i, j: stream(seed, i, f"losses to {j}"),
        node_bytes_s=inf if section.node_rate_bit_s is None else section.node_rate_bit_s / 8,
        log=log,
        recorded=_recorded(section, nodes, place),
    )


def _wires(section: config.Clock, nodes: int) -> tuple[dict[tuple[int, int], Wire], Wire]:
    """Those of the links that differ, and that of the rest."""
    wires = {}
    for index, link in enumerate(section.links):
        low, high = sorted(link.between)
        if not 0 <= low < high < nodes:
            raise ConfigError(
                f"found a link between {low} and {high}; required: two of the nodes 0 to {nodes - 1}",
                (*section.path, "links", index, "between"),
            )
        loss = section.loss if link.loss is None else link.loss
        wires[low, high] = _wire(section, link.latency_s, link.rate_bit_s, loss)
    return wires, _wire(section, section.latency_s, section.rate_bit_s, section.loss)


def _wire(section: config.Clock, latency_s: float, rate_bit_s: float | None, loss: float) -> Wire:
    if loss and section.retransmit_s <= 2 * latency_s:
        raise ConfigError(
            f"found {section.retransmit_s:g} s; required: more than {2 * latency_s:g} s, in which a message and its "
            "acknowledgment are under way, else what is not lost is sent again too",
            (*section.path, "retransmit_s"),
        )
    rate = {} if rate_bit_s is None else {"bytes_s": rate_bit_s / 8}
    return Wire(latency_s, **rate, loss=loss, retransmit_s=section.retransmit_s)


def _recorded(section: config.Clock, nodes: int, folder: Path) -> Recorded | None:
    """The log that is to be replayed."""
    if section.replay is None:
        return None
    at = (*section.path, "replay")
    if given := sorted(section.model_fields_set - {"replay", "log", "starving"}):
        raise ConfigError(f"a log has all times in it; leave {', '.join(given)} out", at)
    try:
        found = Recorded.read(folder / section.replay)
    except ConfigError as error:
        raise ConfigError(str(error), at) from error
    if found.nodes != nodes:
        raise ConfigError(f"{section.replay} is of {found.nodes} nodes; the experiment has {nodes}", at)
    return found


@contextmanager
def event_log(
    clock: config.Clock | None, folder: Path | None, nodes: int, *, goes_on: bool = False
) -> Iterator[EventLog | None]:
    """The log of a run in its folder, where there are both and it is asked for.

    Args:
        goes_on: whether the run does, and its log, which then is there already.
    """
    if clock is None or not clock.log or folder is None:
        yield None
        return
    goes_on = goes_on and (folder / EVENTS).exists()
    with (folder / EVENTS).open("r+" if goes_on else "w", encoding="utf-8") as file:
        log = EventLog(file)
        if not goes_on:
            log.begin(nodes)
        yield log


def simulator(
    gradients: Sequence[GradientAt], algorithm: Algorithm, time: VirtualTime | None, starving: int = 1000
) -> Driver:
    """The driver of a simulated run.

    Args:
        time: of the run; None where it has none.
        starving: of a free run, after how many steps of the mean node one without any is an error.
    """
    if time is None:
        return LockstepDriver(gradients)
    if algorithm.free_running:
        return FreeInTime(gradients, time, starving)
    if isinstance(algorithm, TokenMethod) and algorithm.route == "letters":
        return LettersInTime(gradients, time)
    return ExchangesInTime(LockstepDriver(gradients), time)
