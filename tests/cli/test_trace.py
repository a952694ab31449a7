"""`--trace` on real processes, and `decentral trace` on what they left."""

import json
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
