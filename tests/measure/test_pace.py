"""How fast each node got on, by hand and from runs on a virtual clock."""

import json
from pathlib import Path
from typing import Any

import pytest

from decentral.loading import load
from decentral.measure.comparison import DOCUMENT, Comparison, Evaluation, FreeRun, PaceSpread, SeedResult
from decentral.measure.pace import is_unequal, pace_of, paces
from decentral.measure.report import read_comparison
from decentral.measure.speedup import compare_simulated
from decentral.measure.summary import seed_result
from tests.contract.test_experiment import DIGITS, prepared
from tests.measure.test_summary import row

CLOCK: dict[str, Any] = {"gradient_s": [0.5, 0.125, 0.125, 0.125], "latency_s": 0.01}
SWIFT: dict[str, Any] = {"algorithm": "swift", "clock": CLOCK, "compare": [{"algorithm": "dsgd"}], "baselines": []}
TIMED: dict[str, Any] = {"duration_s": 2.0, "evaluate_every_s": 1.0, "rounds": 4, "evaluate_every": 2}
COUNTED: dict[str, Any] = {"rounds": 4, "evaluate_every": 2}


def free(steps: list[int], seconds: list[float] | None) -> Evaluation:
    went = FreeRun(steps=steps, staleness=[[3, 1], []], seconds=seconds)
    return row(20, 0.9, [0.9, 0.9]).model_copy(update={"free_run": went})


def paced(steps_per_second: list[float | None] | None, staleness: list[list[int]] | None = None) -> SeedResult:
    found = {"steps_per_second": steps_per_second, "staleness": staleness}
    return seed_result(0, ".", [], None, None).model_copy(update=found)


def compared(folder: Path, *changes: dict[str, Any]) -> Comparison:
    prepared(folder, DIGITS, SWIFT, *changes)
    experiment = load(folder / "experiment.yaml").experiment
    return compare_simulated(experiment, folder / "run", "a command", lambda *_: None)


def test_in_rounds_all_nodes_are_as_fast_as_the_slowest_and_the_dead_have_no_pace() -> None:
    last = row(20, 0.9, [0.9, 0.9])  # 2 s
    assert paces(last, None) == [10.0, 10.0]
    assert paces(last, 2) == [10.0, 10.0]
    assert paces(last, 100) == [500.0, 500.0], "the model walks: 50 visits a round for each of two nodes"
    assert paces(last.model_copy(update={"bytes_sent": [7, None]}), 2) == [10.0, None]
    assert paces(row(0, 0.1, [0.1, 0.1]), 2) is None


def test_in_a_free_run_each_node_has_its_own_steps_and_seconds() -> None:
    assert paces(free([30, 3], [2.0, 3.0]), 2) == [15.0, 1.0]
    assert paces(free([30, 3], None), 2) == [15.0, 1.5], "older records have the slowest node's seconds alone"


def test_three_nodes_stand_for_all_each_the_median_over_the_seeds() -> None:
    runs = [paced([5.0, None, 1.0, 6.0]), paced([7.0, 2.0, 8.0]), paced(None), paced([9.0])]
    assert pace_of(runs) == PaceSpread(slowest=2.0, median=7.0, fastest=8.0)
    assert pace_of([paced(None), paced([None])]) is None


def test_a_run_that_failed_has_neither_pace_nor_staleness() -> None:
    found = seed_result(0, ".", [free([30, 3], [2.0, 3.0])], None, None)
    assert (found.steps_per_second, found.staleness) == ([15.0, 1.0], [[3, 1], []])
    failed = seed_result(0, ".", [free([30, 3], [2.0, 3.0])], None, "diverged")
    assert (failed.steps_per_second, failed.staleness) == (None, None)


@pytest.mark.parametrize("ends", [TIMED, COUNTED])
def test_one_slow_node_slows_rounds_alone_whether_a_run_ends_by_time_or_by_steps(
    ends: dict[str, Any], tmp_path: Path
) -> None:
    found = compared(tmp_path, ends)
    swift, dsgd = found.methods
    assert found.unequal
    assert (swift.staleness_counts, dsgd.staleness_counts) == ("a node's own steps since it came", None)
    assert swift.per_seed[0].steps_per_second == pytest.approx([2.0, 8.0, 8.0, 8.0], rel=1e-3)
    assert dsgd.per_seed[0].steps_per_second == pytest.approx([2.0] * 4, rel=0.05)
    last = json.loads((tmp_path / "run/00-swift-ring/seed-0/metrics.jsonl").read_text().splitlines()[-1])["free_run"]
    assert swift.per_seed[0].staleness == last["staleness"]
    assert [sum(counts) > 0 for counts in last["staleness"]] == [True] * 4
    assert dsgd.per_seed[0].staleness is None


def test_without_a_clock_there_is_no_pace(tmp_path: Path) -> None:
    (dsgd,) = compared(tmp_path, {"algorithm": "dsgd", "compare": [], "clock": None, "rounds": 2}).methods
    assert dsgd.pace is None
    assert dsgd.per_seed[0].steps_per_second is None


def test_older_documents_are_read(tmp_path: Path) -> None:
    compared(tmp_path, COUNTED)
    path = tmp_path / "run" / DOCUMENT
    document = json.loads(path.read_text())
    for method in document["methods"]:
        for part, keys in (
            (method, ["pace", "staleness_counts"]),
            (method["per_seed"][0], ["steps_per_second", "staleness"]),
        ):
            for key in keys:
                del part[key]
    del document["unequal"]
    path.write_text(json.dumps(document))
    found = read_comparison(path)
    assert not found.unequal
    assert [method.steps_per_second for method in found.methods] == [None, None]


UNEQUAL: dict[str, tuple[bool, dict[str, Any]]] = {
    "alike": (False, {"clock": {"gradient_s": [0.1] * 4}}),
    "random alike": (False, {"clock": {"varies": "exponential"}}),
    "times": (True, {"clock": CLOCK}),
    "the clock's straggler": (True, {"clock": {"stragglers": [{"node": 1, "slowdown": 2}]}}),
    "a straggler": (True, {"stragglers": [{"node": 1, "slowdown": 2}]}),
    "a crash": (True, {"clock": {"crashes": [{"node": 1, "from_s": 1, "until_s": 2}]}}),
    "batches": (True, {"batch_size": [8, 8, 8, 16]}),
    "equal batches": (False, {"batch_size": [8] * 4}),
}


@pytest.mark.parametrize("case", UNEQUAL)
def test_what_makes_nodes_unequal(case: str, tmp_path: Path) -> None:
    unequal, changes = UNEQUAL[case]
    prepared(tmp_path, DIGITS, {"algorithm": "dsgd"}, {"clock": None}, changes)
    experiment = load(tmp_path / "experiment.yaml").experiment
    assert is_unequal(experiment, "virtual") is unequal
    if "clock" in changes:
        assert not is_unequal(experiment, "wall"), "processes have no virtual time"
