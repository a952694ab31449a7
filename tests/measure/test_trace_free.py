"""Traces of asynchronous runs, ranks as threads: each step is a round of the node's own, and arrows find their ends."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from decentral.measure.recording import Tracing
from decentral.measure.trace import Event, on_one_clock, read_ranks
from decentral.measure.trace_summary import summary
from tests.measure.test_trace import NODES, check_schema, check_shares, complete, end, lies_in, ns, prepared, trained

pytestmark = pytest.mark.timeout(60)

STEPS = 8
WHOLE: dict[str, Any] = {"rounds": STEPS, "evaluate_every": 4, "diagnostics": []}
PUSHING = [("gloo", "swift"), ("shared-memory", "async-gradient-push")]


def traced(folder: Path, wire: str, algorithm: str, rounds: int = 200, **changes: Any) -> list[Event]:
    """All ranks' events on one clock, of files that are whole."""
    trained(prepared(folder, {"name": algorithm}, **{**WHOLE, **changes}), wire, Tracing(folder, rounds))
    for trace in read_ranks(folder):
        check_schema(trace.traceEvents)
        check_shares(trace)
    merged = on_one_clock(read_ranks(folder))
    check_schema(merged)
    return merged


def of(events: list[Event], *categories: str) -> list[Event]:
    return [event for event in complete(events) if event.cat in categories]


def messages(events: list[Event], *categories: str) -> Counter[tuple[int, int, int]]:
    """By sender, receiver and what both call it."""
    found = Counter[tuple[int, int, int]]()
    for event in of(events, *categories):
        if event.args is not None and "neighbor" in event.args:
            ends = (event.pid, event.args["neighbor"])[:: 1 if event.cat == "send" else -1]
            found[ends[0], ends[1], event.args["message"]] += 1
    return found


def check_arrows(events: list[Event], found: int) -> None:
    starts, ends = ({event.id: event for event in events if event.ph == phase} for phase in "sf")
    assert len(starts) == found
    assert starts.keys() == ends.keys()
    for key, start in starts.items():
        assert start.pid != ends[key].pid
        assert start.ts <= ends[key].ts
        assert lies_in(start, events, "send")
        assert lies_in(ends[key], events, "poll") or lies_in(ends[key], events, "wait")


@pytest.mark.parametrize(("wire", "algorithm"), PUSHING)
def test_each_push_that_was_found_has_an_arrow_to_the_look_that_found_it(
    tmp_path: Path, wire: str, algorithm: str
) -> None:
    merged = traced(tmp_path, wire, algorithm)
    counts = Counter((event.pid, event.cat) for event in complete(merged))
    assert all(
        counts[node, "round"] == counts[node, "forward"] == counts[node, "backward"] == STEPS for node in range(3)
    )
    assert all(counts[node, "serve"] == 1 for node in range(NODES))
    sent, found = messages(merged, "send"), messages(merged, "poll", "wait")
    assert {number for _, _, number in sent} - {-1} == set(range(STEPS))
    assert len(sent) >= NODES * (NODES - 1) * STEPS
    assert found.keys() <= sent.keys()
    assert set(found.values()) == {1}  # nothing is found twice
    check_arrows(merged, len(found))
    own = [name for name in ("round", "serve") for event in of(merged, "send") if around(event, merged, name)]
    assert len(own) == len(of(merged, "send"))


def around(event: Event, events: list[Event], category: str) -> bool:
    return any(
        other.pid == event.pid and ns(other.ts) <= ns(event.ts) and end(event) <= end(other)
        for other in of(events, category)
    )


def test_letters_are_numbered_alike_at_both_ends_however_far_the_nodes_are(tmp_path: Path) -> None:
    merged = traced(tmp_path, "shared-memory", "ad-psgd")
    sent, found = messages(merged, "send"), messages(merged, "poll", "wait")
    assert sent == found  # each arrives
    assert set(sent.values()) == {1}
    check_arrows(merged, len(found))


def test_the_last_steps_are_kept_and_all_bytes_counted(tmp_path: Path) -> None:
    ready = prepared(tmp_path, {"name": "swift"}, **WHOLE)
    traced(tmp_path, "gloo", "swift", rounds=3)
    for trace, rank in zip(read_ranks(tmp_path), summary(read_ranks(tmp_path)).ranks, strict=True):
        assert (rank.rounds, rank.dropped_rounds) == (3, STEPS - 3)
        numbers = [(event.args or {})["round"] for event in complete(trace.traceEvents) if event.cat == "round"]
        assert numbers == [STEPS - 3, STEPS - 2, STEPS - 1]
        frame = 64 + 4 * ready.task.parameters
        assert rank.sent_bytes % frame == 0
        assert 0 < rank.sent_bytes // frame <= (NODES - 1) * (STEPS + 1)
        assert rank.overlap is None


def test_a_step_that_the_end_cuts_short_is_noted_with_its_wait(tmp_path: Path) -> None:
    """Node 0 serves and waits for gradients, which take longer than the run, when the time is over."""
    slow = {"rounds": 1000, "duration_s": 0.2, "topology": "star", "least_gradient_s": 0.4, "optimizer": {"lr": 0.1}}
    trained(prepared(tmp_path, {"name": "async-sgd"}, **{**WHOLE, **slow}), "shared-memory", Tracing(tmp_path))
    events = read_ranks(tmp_path)[0].traceEvents
    check_schema(events)
    *_, cut_short = of(events, "round")
    within = [event for event in complete(events) if event is not cut_short and around(event, [cut_short], "round")]
    last = max(within, key=end)
    assert last.cat == "wait"
    assert "neighbor" not in (last.args or {})
