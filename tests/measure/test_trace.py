"""Traces of real runs, ranks as threads: the models are the untraced ones, and the files are whole and say what was."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from decentral.errors import ConfigError, DivergedError
from decentral.loading import load
from decentral.measure.prepared import Prepared, own_method
from decentral.measure.recording import Tracing
from decentral.measure.run import run_on
from decentral.measure.trace import Event, RankTrace, merge, on_one_clock, rank_file, read_ranks, write_rank
from decentral.measure.trace_summary import SHARES, shares, summary
from decentral.timeline import Timeline
from decentral.training.objective import flat
from decentral.transport.world import World
from tests.contract.ranks import on_ranks

pytestmark = pytest.mark.timeout(120)

NODES, ROUNDS, EVERY = 3, 6, 4
BASE: dict[str, Any] = {
    "nodes": NODES,
    "rounds": ROUNDS,
    "batch_size": 8,
    "evaluate_every": EVERY,
    "data": "digits",
    "model": {"name": "mlp", "hidden": [16]},
    "optimizer": {"lr": 0.1, "momentum": 0.9},
    "topology": "ring",
}
VARIATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "atc over gloo": ("gloo", {"name": "dsgd", "order": "adapt-then-combine"}),
    "atc over shared memory": ("shared-memory", {"name": "dsgd", "order": "adapt-then-combine"}),
    "awc over gloo": ("gloo", {"name": "dsgd", "order": "adapt-while-communicate"}),
    "awc over shared memory": ("shared-memory", {"name": "dsgd", "order": "adapt-while-communicate"}),
    "cta, compressed": ("shared-memory", {"name": "dsgd", "order": "combine-then-adapt", "compression": "bf16"}),
    "every third round": ("gloo", {"name": "dsgd", "every": 3}),
    "all-reduce": ("gloo", {"name": "allreduce"}),
}


def prepared(folder: Path, algorithm: dict[str, Any], **changes: Any) -> Prepared:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**BASE, "algorithm": algorithm, **changes}))
    return own_method(load(path).experiment)


def trained(ready: Prepared, wire: str, tracing: Tracing | None) -> list[torch.Tensor]:
    def work(world: World) -> torch.Tensor:
        return flat(run_on(world, ready, epoch=1, run=7, observe=lambda _: None, tracing=tracing)[world.rank])

    return on_ranks(ready.nodes, work, wire=wire)


def complete(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.ph == "X"]


def ns(us: float) -> int:
    return round(us * 1000)


def end(event: Event) -> int:
    assert event.dur is not None
    return ns(event.ts) + ns(event.dur)


def check_schema(events: Sequence[Event]) -> None:
    """What the Trace Event Format asks of a file."""
    timed = [event for event in events if event.ph != "M"]
    assert [event.ts for event in timed] == sorted(event.ts for event in timed)
    titles = {event.name for event in events if event.ph == "M"}
    assert titles == {"process_name", "process_sort_index", "thread_name"}
    open_by_node: dict[int, list[int]] = {}
    for event in complete(timed):
        around = open_by_node.setdefault(event.pid, [])
        while around and around[-1] <= ns(event.ts):
            around.pop()
        assert not around or end(event) <= around[-1], f"{event} ends after what it began in"
        around.append(end(event))
    begun, ended = (Counter(event.id for event in timed if event.ph == phase) for phase in "be")
    assert begun == ended
    assert set(begun.values()) <= {1}


@pytest.mark.parametrize(("wire", "algorithm"), VARIATIONS.values(), ids=VARIATIONS.keys())
def test_a_traced_run_leaves_the_same_models_and_whole_traces(
    tmp_path: Path, wire: str, algorithm: dict[str, Any]
) -> None:
    ready = prepared(tmp_path, algorithm)
    plain, seen = trained(ready, wire, None), trained(ready, wire, Tracing(tmp_path))
    for one, other in zip(plain, seen, strict=True):
        assert torch.equal(one, other) or algorithm["name"] == "allreduce"  # gloo's order of summation is its own
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    ranks = read_ranks(tmp_path)
    mixings = 0 if algorithm["name"] == "allreduce" else ROUNDS // algorithm.get("every", 1)
    for trace in ranks:
        check_schema(trace.traceEvents)
        counts = Counter(event.cat for event in complete(trace.traceEvents))
        assert counts["round"] == counts["forward"] == counts["backward"] == counts["local step"] == ROUNDS
        assert counts["evaluate"] == 3  # before, after round 4, at the end
        messages = mixings * (NODES - 1)
        assert counts["send"] == counts["wait"] == messages
        assert sum(event.ph == "b" for event in trace.traceEvents) == mixings
        assert mixings <= counts["mix"] <= 2 * mixings  # in two parts where the local step is between
        check_shares(trace)
    check_merged(on_one_clock(ranks), messages * NODES)


def check_shares(trace: RankTrace) -> None:
    found = shares(trace.traceEvents)
    assert set(found) == {*SHARES, "other"}
    assert min(found.values()) >= 0
    assert sum(found.values()) == pytest.approx(1)
    assert min(found["forward"], found["backward"]) > 0


def check_merged(events: Sequence[Event], messages: int) -> None:
    check_schema(events)
    starts, ends = ({event.id: event for event in events if event.ph == phase} for phase in "sf")
    assert len(starts) == len(ends) == sum(event.ph == "s" for event in events) == messages
    assert starts.keys() == ends.keys()
    for key, start in starts.items():
        assert start.ts <= ends[key].ts
        assert start.pid != ends[key].pid
        assert lies_in(start, events, "send")
        assert lies_in(ends[key], events, "wait")


def lies_in(arrow: Event, events: Sequence[Event], category: str) -> bool:
    return any(
        event.cat == category
        and event.pid == arrow.pid
        and ns(event.ts) <= ns(arrow.ts) < max(end(event), ns(event.ts) + 1)
        for event in complete(events)
    )


def test_only_an_exchange_behind_computation_overlaps(tmp_path: Path) -> None:
    found = {}
    for order in ("adapt-then-combine", "adapt-while-communicate"):
        folder = tmp_path / order
        folder.mkdir()
        trained(prepared(folder, {"name": "dsgd", "order": order}), "shared-memory", Tracing(folder))
        found[order] = [rank.overlap for rank in summary(read_ranks(folder)).ranks]
    assert found["adapt-then-combine"] == [0.0] * NODES
    assert all(share is not None and 0 < share < 1 for share in found["adapt-while-communicate"])


def test_the_last_rounds_are_kept_and_the_others_told(tmp_path: Path) -> None:
    trained(prepared(tmp_path, {"name": "dsgd"}), "gloo", Tracing(tmp_path, rounds=2))
    ranks = read_ranks(tmp_path)
    for trace in ranks:
        assert (trace.otherData.rounds, trace.otherData.dropped_rounds) == (2, ROUNDS - 2)
        rounds = [event.name for event in complete(trace.traceEvents) if event.cat == "round"]
        assert rounds == [f"round {ROUNDS - 2}", f"round {ROUNDS - 1}"]
        (title,) = (event for event in trace.traceEvents if event.name == "process_name")
        assert "last 2 of 6 rounds" in (title.args or {})["name"]
        sent = [event.args["bytes"] for event in trace.traceEvents if event.ph == "C" and event.args]
        assert max(sent) == ROUNDS * min(sent) / (ROUNDS - 1)  # counted from the start, dropped rounds too
    check_merged(on_one_clock(ranks), 2 * NODES * (NODES - 1))


def test_a_run_that_diverges_leaves_its_traces(tmp_path: Path) -> None:
    ready = prepared(tmp_path, {"name": "dsgd"}, optimizer={"lr": 1e30})
    with pytest.raises(DivergedError):
        trained(ready, "gloo", Tracing(tmp_path))
    ranks = read_ranks(tmp_path)
    assert len(ranks) == NODES
    for trace in ranks:
        check_schema(trace.traceEvents)
        assert 0 < trace.otherData.rounds < ROUNDS


def written(folder: Path, node: int, ahead_ns: int) -> None:
    """A rank of two whose clock is so far ahead; both send at 1 ms and wait from 2 to 3 ms of true time."""
    events = [
        Event(ph="M", name="process_name", pid=node),
        Event(ph="X", name="round 0", cat="round", pid=node, ts=500, dur=3000, args={"round": 0}),
        *(
            Event(
                ph="X",
                name=name,
                cat=name,
                pid=node,
                ts=began,
                dur=dur,
                args={"round": 0, "neighbor": 1 - node, "sequence": 0},
            )
            for name, began, dur in (("send", 1000, 100), ("wait", 2000, 1000))
        ),
    ]
    origin = {"label": "dsgd", "seed": 0, "node": node, "nodes": 2, "host": f"h{node}", "links": {}, "rounds": 1}
    clock = {"dropped_rounds": 0, "began_ns": 10**15 + ahead_ns, "ahead_ns": ahead_ns, "round_trip_ns": 200_000 * node}
    file = rank_file(folder, node)
    file.parent.mkdir(exist_ok=True)
    trace = RankTrace.model_validate({"traceEvents": events, "otherData": origin | clock})
    file.write_text(trace.model_dump_json(exclude_none=True))


@pytest.mark.parametrize("ahead_ns", [0, 3_600 * 10**9, -7_000_000])
def test_a_clock_that_is_off_is_put_right(tmp_path: Path, ahead_ns: int) -> None:
    written(tmp_path, 0, 0)
    written(tmp_path, 1, ahead_ns)
    ranks = read_ranks(tmp_path)
    merged = on_one_clock(ranks)
    for node in (0, 1):
        times = [event.ts for event in complete(merged) if event.pid == node]
        assert times == [0, 500, 1500]  # of the earliest event, and the same on both
    check_merged(
        [Event(ph="M", name=name, pid=0) for name in ("process_sort_index", "thread_name")] + merged, messages=2
    )
    assert summary(ranks).clock_error_us == (100 if ahead_ns else 0)


def test_a_message_whose_other_end_is_not_kept_has_no_arrow(tmp_path: Path) -> None:
    written(tmp_path, 0, 0)
    written(tmp_path, 1, 0)
    ranks = read_ranks(tmp_path)
    ranks[1].traceEvents.pop()  # node 1 does not wait
    arrows = [(event.ph, event.pid) for event in on_one_clock(ranks) if event.ph in "sf"]
    assert sorted(arrows) == [("f", 0), ("s", 1)]


def test_a_summary_in_known_numbers(tmp_path: Path) -> None:
    written(tmp_path, 0, 0)
    written(tmp_path, 1, 0)
    found = summary(read_ranks(tmp_path))
    assert found.slowest_edge == (0, 1)
    for rank in found.ranks:
        assert rank.round_ms == 3
        assert rank.waited_ms == {1 - rank.node: 1.0}
        assert rank.slowest_neighbor == 1 - rank.node
        assert rank.overlap is None
        assert {name: share for name, share in rank.shares.items() if share} == pytest.approx(
            {"send": 0.1 / 3, "wait": 1 / 3, "other": 1.9 / 3}
        )


TORN: dict[str, Any] = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "another document": lambda text: '{"methods": []}',
    "a negative duration": lambda text: text.replace('"dur":3000.0', '"dur":-3.0'),
    "another format": lambda text: text.replace('"format":1', '"format":9'),
}


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN.keys())
def test_a_torn_file_is_named(tmp_path: Path, tear: Any) -> None:
    written(tmp_path, 0, 0)
    written(tmp_path, 1, 0)
    file = rank_file(tmp_path, 1)
    torn = tear(file.read_text())
    assert torn != file.read_text()
    file.write_text(torn)
    with pytest.raises(ConfigError, match="torn or no trace of a rank") as caught:
        read_ranks(tmp_path)
    assert str(file) in str(caught.value)


def test_no_trace_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no trace in .*--trace"):
        read_ranks(tmp_path)


def test_traces_of_two_runs_are_refused(tmp_path: Path) -> None:
    written(tmp_path, 0, 0)
    written(tmp_path, 1, 0)
    file = rank_file(tmp_path, 1)
    file.write_text(file.read_text().replace('"label":"dsgd"', '"label":"allreduce"'))
    with pytest.raises(ConfigError, match="holds traces of two runs"):
        read_ranks(tmp_path)
    file.rename(rank_file(tmp_path, 5))
    with pytest.raises(ConfigError, match=r"rank-5\.json holds the trace of node 1"):
        read_ranks(tmp_path)


def test_a_missing_rank_is_told_and_the_others_are_merged(tmp_path: Path) -> None:
    written(tmp_path, 1, 0)
    with pytest.warns(UserWarning, match="has no trace of node 0"):
        ranks = read_ranks(tmp_path)
    merge(ranks, tmp_path / "trace.json")
    assert {event.pid for event in on_one_clock(ranks)} == {1}
    with pytest.raises(ConfigError, match="cannot write"):
        merge(ranks, tmp_path / "nowhere" / "trace.json")


def test_a_rank_that_saw_nothing_can_be_merged(tmp_path: Path) -> None:
    about = {"label": "dsgd", "seed": 0, "nodes": 1, "ahead_ns": 0, "round_trip_ns": 0}
    write_rank(tmp_path, Timeline(0), about)
    ranks = read_ranks(tmp_path)
    assert [event.ph for event in on_one_clock(ranks)] == ["M", "M", "M"]
    assert summary(ranks).ranks[0].round_ms is None
