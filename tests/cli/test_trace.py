"""`--trace` on real processes, and `decentral trace` on what they left."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from decentral.cli.trace import rounds_asked, words
from decentral.errors import ConfigError
from decentral.timeline import ROUNDS
from tests.cli.conftest import Command
from tests.cli.test_processes import finished


def models(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((run / "models").iterdir())]


def events(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())["traceEvents"]
    return found


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_a_traced_run_of_processes_is_merged_and_summed_up(small: Path, decentral: Command) -> None:
    folder, pair = small.parent, ("-s", "nodes=2")
    for options in ((), ("--trace", "--trace-rounds", "10")):
        code, _, err = finished(folder, "train", small.name, *pair, "--out", f"run{len(options)}", *options)
        assert code == 0, err
    assert models(folder / "run0") == models(folder / "run3")
    assert len(models(folder / "run3")) == 2
    assert not (folder / "run0" / "trace").exists()
    told = decentral("trace", "merge", "run3")
    assert told.code == 0
    assert told.out.startswith("run3/trace.json: 2 ranks, one clock\n")
    assert "of the last 10 rounds; earlier ones were dropped" in told.out
    merged = events(folder / "run3" / "trace.json")
    phases = Counter(event["ph"] for event in merged)
    assert phases["s"] == phases["f"] == 2 * 10
    assert phases["b"] == phases["e"] == 2 * 10
    assert phases["C"] == 2 * 10
    document = decentral("trace", "merge", "run3", "-o", "other.json", "--json").json
    assert document == decentral("trace", "summary", "run3", "--json").json | {"trace": "other.json"}
    assert events(folder / "other.json") == merged
    assert [rank["node"] for rank in document["ranks"]] == [0, 1]
    assert document["slowest_edge"] == [0, 1]
    for rank in document["ranks"]:
        assert sum(rank["shares"].values()) == pytest.approx(1)
        assert (rank["rounds"], rank["dropped_rounds"], rank["overlap"]) == (10, 2, 0)
    table = decentral("trace", "summary", "run3")
    assert table.code == 0
    assert "slowest edge: 0-1" in table.out


@pytest.mark.processes
@pytest.mark.timeout(240)
@pytest.mark.long
def test_each_run_of_a_comparison_has_its_own_trace(small: Path, decentral: Command) -> None:
    """DDP's too, which brings its own loop."""
    code, _, err = finished(small.parent, "speedup", small.name, "-s", "nodes=2", "--out", "run", "--trace")
    assert code == 0, err
    for method, messages in (("00-dsgd-ring", 12), ("01-allreduce", 0), ("02-ddp", 0)):
        run = Path("run") / method / "seed-0"
        for rank in decentral("trace", "summary", str(run), "--json").json["ranks"]:
            assert rank["rounds"] == 12
            assert rank["shares"]["backward"] > 0
            assert rank["shares"]["local step"] > 0
            assert sum(rank["shares"].values()) == pytest.approx(1)
            counts = Counter(e.get("cat") for e in events(run / "trace" / f"rank-{rank['node']}.json"))
            assert counts["round"] == counts["forward"] == counts["local step"] == 12
            assert counts["evaluate"] == 4
            assert counts["wait"] == messages


ANOTHER_CLOCK = ("unshare", "--time", "--monotonic", "5000", "--kill-child")
AHEAD_NS = 5_000 * 10**9


def can_have_another_clock() -> bool:
    try:
        return subprocess.run([*ANOTHER_CLOCK, "true"], capture_output=True, check=False, timeout=10).returncode == 0
    except OSError:
        return False


@pytest.mark.processes
@pytest.mark.timeout(240)
@pytest.mark.skipif(not can_have_another_clock(), reason="needs root and Linux's time namespaces")
def test_ranks_whose_clocks_differ_are_merged_on_one(small: Path, decentral: Command) -> None:
    """As on two hosts that have not been up for the same time: every message must arrive after it was sent."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    train = (sys.executable, "-m", "decentral", "train", small.name, "-s", "nodes=2", "--trace", "--out", "run")
    processes = [
        subprocess.Popen(
            [*prefix, *train],
            cwd=small.parent,
            env=os.environ | where | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank, prefix in enumerate(((), ANOTHER_CLOCK))
    ]
    try:
        told = [process.communicate(timeout=150)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], told
    origin = json.loads((small.parent / "run" / "trace" / "rank-1.json").read_text())["otherData"]
    assert abs(origin["ahead_ns"] - AHEAD_NS) <= origin["round_trip_ns"] / 2
    assert "2 ranks, clocks within" in decentral("trace", "merge", "run").out
    merged = events(small.parent / "run" / "trace.json")
    sent, arrived = ({e["id"]: e["ts"] for e in merged if e["ph"] == phase} for phase in "sf")
    assert len(sent) == len(arrived) == 2 * 12
    assert all(sent[message] <= arrived[message] for message in sent)
    assert max(event["ts"] for event in merged if "ts" in event) < AHEAD_NS / 1000 / 2


def test_what_is_no_trace_is_told_in_one_line(decentral: Command, tmp_path: Path) -> None:
    for verb in ("merge", "summary"):
        told = decentral("trace", verb, "nowhere")
        assert told.code == 2
        assert told.line.startswith("no trace in nowhere: ")
    file = tmp_path / "run" / "trace" / "rank-0.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"traceEvents": [')
    told = decentral("trace", "merge", "run", "--json")
    assert told.code == told.json["exit_code"] == 2
    assert told.line.startswith("run/trace/rank-0.json is torn or no trace of a rank")


def test_rounds_without_a_trace_are_refused(decentral: Command, small: Path) -> None:
    told = decentral("train", small.name, "--trace-rounds", "7")
    assert told.code == 2
    assert told.line == "--trace-rounds 7 without --trace; add --trace, or leave it out"


def test_what_a_rank_is_asked_to_keep() -> None:
    assert rounds_asked(False, None) is None
    assert rounds_asked(True, None) == ROUNDS
    assert rounds_asked(True, 7) == 7
    with pytest.raises(ConfigError):
        rounds_asked(False, 7)
    assert words(None) == []
    assert words(7) == ["--trace", "--trace-rounds", "7"]


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_processes_that_never_wait_for_each_other_are_traced_too(small: Path, decentral: Command) -> None:
    asked = ("nodes=2", "algorithm=swift", "least_gradient_s=0.03")
    options = [*(word for setting in asked for word in ("-s", setting)), "--trace", "--trace-rounds", "10"]
    code, _, err = finished(small.parent, "train", small.name, "--out", "run", *options)
    assert code == 0, err
    assert decentral("trace", "merge", "run").code == 0
    merged = events(small.parent / "run" / "trace.json")
    counts = Counter(event.get("cat") for event in merged if event["ph"] == "X")
    assert counts["round"] == counts["forward"] == 2 * 10
    assert counts["serve"] == 2
    starts, ends = ({event["id"]: event["pid"] for event in merged if event["ph"] == phase} for phase in "sf")
    assert starts
    assert {key: 1 - node for key, node in starts.items()} == ends
    ranks = decentral("trace", "summary", "run", "--json").json["ranks"]
    assert [(rank["rounds"], rank["dropped_rounds"]) for rank in ranks] == [(10, 2)] * 2
    assert all(rank["sent_bytes"] > 0 for rank in ranks)
    assert decentral("trace", "summary", "run").code == 0
