"""What the ranks of a traced run did with their time, in numbers."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from statistics import median
from typing import get_args

from decentral.measure.comparison import Document
from decentral.measure.trace import Event, RankTrace
from decentral.timeline import Category

COMPUTATION = ("forward", "backward", "local step", "mix")
"""What an exchange may be hidden behind."""
SHARES = tuple(name for name in get_args(Category) if name not in ("round", "evaluate", "exchange", "serve"))


class RankSummary(Document):
    """One rank's rounds, or own steps in a free run, evaluations not counted. A share is of the time of all of them."""

    node: int
    host: str
    rounds: int
    dropped_rounds: int
    round_ms: float | None
    """Median; null where no round has begun."""
    shares: dict[str, float]
    """By category, each moment counted once, with the innermost span; `other` is the rest, so they add up to 1."""
    evaluation_s: float
    waited_ms: dict[int, float]
    """By neighbor, the mean wait for one message, or until one was taken. Neighbors are waited for in turn: while the
    first one is, the messages of the others may arrive, so it bears what all have in common.
    """
    slowest_neighbor: int | None
    """Whom it waited for the longest, all in all."""
    overlap: float | None
    """Share of its exchanges, from the first send to the last arrival, in which it computed; null without any."""
    sent_bytes: int
    """Since the start of the run, headers included, to its neighbors."""


class TraceSummary(Document):
    """All ranks of a run."""

    label: str
    nodes: int
    ranks: list[RankSummary]
    slowest_edge: tuple[int, int] | None
    """On which both ends together waited the longest; a slow node shows in its edges too."""
    clock_error_us: float
    """By how much the clocks of two ranks may disagree in the merged trace, drift not counted."""


def summary(traces: Sequence[RankTrace]) -> TraceSummary:
    """Sum up the ranks of one run."""
    first = traces[0].otherData
    waited: Counter[tuple[int, int]] = Counter()
    for trace in traces:
        for event in _waits(trace):
            low, high = sorted((event.pid, _neighbor(event)))
            waited[low, high] += int(1000 * (event.dur or 0.0))
    errors = sorted(trace.otherData.round_trip_ns / 2e3 for trace in traces if trace.otherData.ahead_ns)
    return TraceSummary(
        label=first.label,
        nodes=first.nodes,
        ranks=[rank_summary(trace) for trace in traces],
        slowest_edge=waited.most_common(1)[0][0] if waited else None,
        clock_error_us=sum(errors[-2:]),
    )


def rank_summary(trace: RankTrace) -> RankSummary:
    """Sum up one rank."""
    origin, rounds = trace.otherData, _of(trace, "round")
    waits: dict[int, list[float]] = defaultdict(list)
    for event in _waits(trace):
        waits[_neighbor(event)].append((event.dur or 0.0) / 1e3)
    sent: dict[str, int] = {}
    for event in trace.traceEvents:
        if event.ph == "C" and event.args is not None:
            sent[event.name] = max(sent.get(event.name, 0), event.args["bytes"])
    return RankSummary(
        node=origin.node,
        host=origin.host,
        rounds=origin.rounds,
        dropped_rounds=origin.dropped_rounds,
        round_ms=median((event.dur or 0.0) / 1e3 for event in rounds) if rounds else None,
        shares=shares(trace.traceEvents),
        evaluation_s=sum(event.dur or 0.0 for event in _of(trace, "evaluate")) / 1e6,
        waited_ms={neighbor: sum(times) / len(times) for neighbor, times in sorted(waits.items())},
        slowest_neighbor=max(waits, key=lambda neighbor: sum(waits[neighbor]), default=None),
        overlap=overlap(trace.traceEvents),
        sent_bytes=sum(sent.values()),
    )


def shares(events: Iterable[Event]) -> dict[str, float]:
    """Of the time of all rounds, by category, and what is left as `other`; empty without rounds."""
    own_ns: Counter[str] = Counter()
    total_ns = 0
    around: list[tuple[int, str]] = []  # ends and categories of the spans that a moment lies in
    for began, ended, category in sorted(_spans(events), key=lambda span: (span[0], -span[1])):
        while around and around[-1][0] <= began:
            around.pop()
        if around:
            own_ns[around[-1][1]] -= ended - began
        if around or category == "round":
            around.append((ended, category))
            own_ns[category] += ended - began
        total_ns += (ended - began) * (category == "round")
    if not total_ns:
        return {}
    return {name: own_ns[name] / total_ns for name in SHARES} | {"other": own_ns["round"] / total_ns}


def overlap(events: Sequence[Event]) -> float | None:
    """Share of all exchanges in which the rank computed; None without exchanges."""
    computed = sorted((began, ended) for began, ended, category in _spans(events) if category in COMPUTATION)
    begins, ends = [began for began, _ in computed], [ended for _, ended in computed]
    before = [0, *accumulate(ended - began for began, ended in computed)]  # computed before the k-th span

    def computed_until(moment: int) -> int:
        index = bisect_right(begins, moment)
        return before[index] - (max(ends[index - 1] - moment, 0) if index else 0)

    started = {event.id: _ns(event.ts) for event in events if event.ph == "b"}
    through = [(started[event.id], _ns(event.ts)) for event in events if event.ph == "e" and event.id in started]
    total_ns = sum(ended - began for began, ended in through)
    if not total_ns:
        return None
    return sum(computed_until(ended) - computed_until(began) for began, ended in through) / total_ns


def _spans(events: Iterable[Event]) -> Iterator[tuple[int, int, str]]:
    """Begin and end in ns, and category: whole numbers, since spans that touch must not overlap by a rounding."""
    for event in events:
        if event.ph == "X":
            yield _ns(event.ts), _ns(event.ts) + _ns(event.dur or 0.0), event.cat or ""


def _ns(us: float) -> int:
    return round(1000 * us)


def _of(trace: RankTrace, category: Category) -> list[Event]:
    return [event for event in trace.traceEvents if event.cat == category and event.ph == "X"]


def _waits(trace: RankTrace) -> list[Event]:
    """Those for a neighbor: in free runs nodes also wait in vain, for whoever comes first."""
    return [event for event in _of(trace, "wait") if "neighbor" in (event.args or {})]


def _neighbor(event: Event) -> int:
    return int((event.args or {})["neighbor"])
