"""Timelines as files: Chrome traces, one of each rank and one of all ranks on rank 0's clock.

Format: the JSON object of the Trace Event Format, which Perfetto and chrome://tracing open. A rank's spans are complete
events (X), its exchanges asynchronous ones (b, e), and the bytes that it has sent over each edge counters (C).
"""

import json
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, ValidationError

from decentral.errors import ConfigError
from decentral.measure.atomic import write_atomically
from decentral.measure.comparison import Document
from decentral.timeline import Span, Timeline

FOLDER = "trace"
"""The ranks' files, inside the folder of their run."""
_ARROW_INSIDE_US = 0.001
"""How long before a wait's end an arrow ends in it: viewers give an event at the very end to what comes next."""


_Place = tuple[int, int, int, int]
"""A message: sender, receiver, round, and its number in that edge and round; of free runs -1 and what both call it."""


class Event(BaseModel):
    """One event of a Chrome trace. Times are in microseconds."""

    model_config = ConfigDict(extra="forbid")

    ph: Literal["X", "b", "e", "C", "M", "s", "f"]
    name: str
    pid: NonNegativeInt
    """The node."""
    tid: int = 0
    ts: NonNegativeFloat = 0.0
    cat: str | None = None
    dur: NonNegativeFloat | None = None
    id: str | None = None
    bp: Literal["e"] | None = None
    args: dict[str, Any] | None = None


class Origin(Document):
    """Where a rank's file comes from, and what its clock says."""

    format: Literal[1] = 1
    label: str
    """Of the method."""
    seed: int
    node: NonNegativeInt
    nodes: int
    host: str
    links: dict[int, str]
    """By neighbor, how it is linked."""
    rounds: int
    """Kept, the last ones of the run."""
    dropped_rounds: int
    """Before those."""
    began_ns: int
    """Time 0 of the events, by the rank's own clock."""
    ahead_ns: int
    """The rank's own clock minus rank 0's, at the start of the run."""
    round_trip_ns: int
    """Of the ping that this was found by; it is wrong by half of that at most, and by what clocks drift in the run."""


class RankTrace(BaseModel):
    """The file of one rank."""

    model_config = ConfigDict(extra="forbid")

    traceEvents: list[Event]  # noqa: N815  the format's own name
    displayTimeUnit: Literal["ms"] = "ms"  # noqa: N815
    otherData: Origin  # noqa: N815


def rank_file(folder: Path, node: int) -> Path:
    """The file of one rank in the folder of its run."""
    return folder / FOLDER / f"rank-{node}.json"


def write_rank(folder: Path, timeline: Timeline, about: Mapping[str, Any]) -> None:
    """Write what a timeline has kept.

    Args:
        folder: of the run.
        about: the fields of `Origin` that the timeline does not know.
    """
    origin = Origin(
        node=timeline.node,
        host=platform.node(),
        links=timeline.links,
        rounds=timeline.rounds_seen - timeline.dropped_rounds,
        dropped_rounds=timeline.dropped_rounds,
        began_ns=timeline.began_ns,
        **about,
    )
    file = rank_file(folder, timeline.node)
    file.parent.mkdir(parents=True, exist_ok=True)
    spans = [*timeline.spans()]
    timed = [event for span in spans for event in _events(span, timeline)]
    ended_ns = max((span.ended_ns for span in spans), default=timeline.began_ns)
    last = (_sent(timeline, ended_ns, *edge) for edge in timeline.pushed_bytes.items() if edge[1])
    events = [*_titles(origin), *_in_order([*timed, *last])]
    write_atomically(file, _chrome(RankTrace(traceEvents=events, otherData=origin).traceEvents, origin.model_dump()))


def _chrome(events: Sequence[Event], other: Mapping[str, Any]) -> bytes:
    document = {
        "traceEvents": [event.model_dump(exclude_none=True) for event in events],
        "displayTimeUnit": "ms",
        "otherData": other,
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _titles(origin: Origin) -> Iterator[Event]:
    node, last = origin.node, origin.rounds + origin.dropped_rounds
    kept = f", last {origin.rounds} of {last} rounds" if origin.dropped_rounds else ""
    yield Event(ph="M", name="process_name", pid=node, args={"name": f"node {node} ({origin.host}{kept})"})
    yield Event(ph="M", name="process_sort_index", pid=node, args={"sort_index": node})
    yield Event(ph="M", name="thread_name", pid=node, args={"name": origin.label})


def _events(span: Span, timeline: Timeline) -> Iterator[Event]:
    """A span's events, in microseconds since the timeline began."""
    node, began, ended = timeline.node, _us(span.began_ns - timeline.began_ns), _us(span.ended_ns - timeline.began_ns)
    if span.category == "exchange":
        key = f"{node}/{span.round}/{span.sequence}"
        args = {"round": span.round, "sequence": span.sequence}
        yield Event(ph="b", name="exchange", cat="exchange", pid=node, ts=began, id=key, args=args)
        yield Event(ph="e", name="exchange", cat="exchange", pid=node, ts=ended, id=key)
        return
    args = {"round": span.round}
    if span.neighbor >= 0:
        named = {"sequence": span.sequence} if span.message is None else {"message": span.message}
        args |= {"neighbor": span.neighbor} | named
    yield Event(ph="X", name=_name(span), cat=span.category, pid=node, ts=began, dur=round(ended - began, 3), args=args)
    if span.category == "send":
        yield _sent(timeline, span.began_ns, span.neighbor, span.total_bytes)


def _sent(timeline: Timeline, at_ns: int, neighbor: int, total_bytes: int) -> Event:
    at_us = _us(at_ns - timeline.began_ns)
    return Event(ph="C", name=f"bytes to node {neighbor}", pid=timeline.node, ts=at_us, args={"bytes": total_bytes})


def _us(ns: int) -> float:
    return ns / 1000


def _name(span: Span) -> str:
    match span.category:
        case "round":
            return f"round {span.round}"
        case "send":
            return f"send to node {span.neighbor}"
        case "wait" if span.neighbor >= 0:
            return f"wait for node {span.neighbor}"
        case "poll" if span.neighbor >= 0:
            return f"found from node {span.neighbor}"
        case _:
            return span.category


def _in_order(events: Iterable[Event]) -> list[Event]:
    """By time; of two that begin together the longer one first, so that the shorter one lies in it."""
    return sorted(events, key=lambda event: (event.ts, -(event.dur or 0.0)))


def read_ranks(run: Path) -> list[RankTrace]:
    """The files of all ranks, by node; a warning where some are missing.

    Raises:
        ConfigError: none is there, one is torn or no trace, or they are of different runs.
    """
    files = sorted((run / FOLDER).glob("rank-*.json"))
    if not files:
        raise ConfigError(
            f"no trace in {run}: found no {FOLDER}/rank-*.json; record one with `decentral train FILE --trace` and "
            "name its run folder (of `speedup`, the folder of one method and seed)"
        )
    traces = sorted((_read(file) for file in files), key=lambda trace: trace.otherData.node)
    _check_one_run(run, traces)
    return traces


def _read(file: Path) -> RankTrace:
    try:
        trace = RankTrace.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{file} is torn or no trace of a rank ({place}: {first['msg']}); record it again") from error
    if file.name != f"rank-{trace.otherData.node}.json":
        raise ConfigError(f"{file} holds the trace of node {trace.otherData.node}; give it back its name")
    return trace


def _check_one_run(run: Path, traces: Sequence[RankTrace]) -> None:
    first = traces[0].otherData
    for other in (trace.otherData for trace in traces):
        if (other.nodes, other.label, other.seed) != (first.nodes, first.label, first.seed):
            raise ConfigError(
                f"{run / FOLDER} holds traces of two runs: {first.label} on {first.nodes} nodes (node {first.node}) "
                f"and {other.label} on {other.nodes} (node {other.node}); keep the files of one"
            )
    if missing := sorted(set(range(first.nodes)) - {trace.otherData.node for trace in traces}):
        warnings.warn(
            f"{run / FOLDER} has no trace of node {', '.join(map(str, missing))}; copy it there from its machine",
            stacklevel=2,
        )


def on_one_clock(traces: Sequence[RankTrace]) -> list[Event]:
    """All ranks' events by rank 0's clock, in order of time, from 0 on, with an arrow for each message."""
    starts = [trace.otherData.began_ns - trace.otherData.ahead_ns for trace in traces]
    firsts = [
        start + 1000 * event.ts
        for start, trace in zip(starts, traces, strict=True)
        for event in trace.traceEvents
        if event.ph != "M"
    ]
    earliest = min(firsts, default=0.0)
    titles, timed = [], []
    for start, trace in zip(starts, traces, strict=True):
        for event in trace.traceEvents:
            if event.ph == "M":
                titles.append(event)
            else:
                shifted = max(round(event.ts + (start - earliest) / 1000, 3), 0.0)
                timed.append(event.model_copy(update={"ts": shifted}))
    return [*titles, *_in_order([*timed, *arrows(timed)])]


def arrows(events: Iterable[Event]) -> Iterator[Event]:
    """From each send to the wait for it at the other end, or the look that found it, where both are known.

    Of what is pushed, only what was found has one; what replaced it, or what it was added to, is found by that.
    """
    waits: dict[_Place, Event] = {}
    sends: dict[_Place, Event] = {}
    for event in events:
        if event.cat in ("send", "wait", "poll") and event.args is not None and "neighbor" in event.args:
            sender, receiver, args = event.pid, event.args["neighbor"], event.args
            if event.cat != "send":
                sender, receiver = receiver, sender
            number = (-1, args["message"]) if "message" in args else (args["round"], args["sequence"])
            place = sender, receiver, *number
            (sends if event.cat == "send" else waits)[place] = event
    for (sender, receiver, round, sequence), send in sends.items():
        if wait := waits.get((sender, receiver, round, sequence)):
            edge = "{}-{}".format(*sorted((sender, receiver)))
            key = f"{edge}/{round}/{sequence}/{sender}"
            ending = wait.ts + max((wait.dur or 0.0) - _ARROW_INSIDE_US, 0.0)
            yield Event(ph="s", name="message", cat="message", pid=sender, ts=send.ts, id=key)
            yield Event(ph="f", name="message", cat="message", pid=receiver, ts=ending, id=key, bp="e")


def merge(traces: Sequence[RankTrace], out: Path) -> None:
    """Write all ranks' traces as one file.

    Raises:
        ConfigError: the file cannot be written.
    """
    other = {"ranks": [trace.otherData.model_dump() for trace in traces]}
    try:
        write_atomically(out, _chrome(on_one_clock(traces), other))
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}; give another file with -o") from error
