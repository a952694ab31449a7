"""Asynchronous methods through a whole experiment: what is evaluated when, virtual seconds, logs, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from decentral.cli.explain import foretold_of_free_run
from decentral.errors import ConfigError
from decentral.loading import load
from decentral.measure.comparison import Evaluation
from decentral.measure.gradient_times import factors_of, spells_of
from decentral.measure.plan import bytes_per_round
from decentral.measure.prepared import Prepared, own_method, refuse_unsimulated
from decentral.measure.run import simulate
from decentral.measure.speedup import compare_simulated
from decentral.measure.virtual import EVENTS, virtual_time
from decentral.training.objective import flat
from decentral.wrapping.settings import algorithm_named
from tests.contract.runs import sgd
from tests.contract.test_experiment import DIGITS, prepared

CLOCK: dict[str, Any] = {"gradient_s": [0.5, 0.125, 0.125, 0.125], "latency_s": 0.01, "rate_bit_s": 1e6}
SWIFT: dict[str, Any] = {
    "algorithm": "swift",
    "clock": CLOCK,
    "duration_s": 2.0,
    "evaluate_every_s": 0.5,
    "optimizer": {"lr": 0.4},
}
EVERYONE = ["swift", "ad-psgd", "async-gradient-push"]


def ran(ready: Prepared, folder: Path | None = None) -> tuple[list[torch.Tensor], list[Evaluation]]:
    seen: list[Evaluation] = []
    modules = simulate(ready, seen.append, folder=folder)
    return [flat(modules[node]) for node in sorted(modules)], seen


@pytest.mark.parametrize("algorithm", EVERYONE)
def test_a_run_lasts_for_its_time_and_is_looked_at_when_it_is_due(algorithm: str, tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, DIGITS, SWIFT, {"algorithm": algorithm})
    _, seen = ran(ready)
    assert [row.seconds for row in seen] == [0.0, 0.5, 1.0, 1.5, 2.0]
    steps = [row.free_run.steps for row in seen if row.free_run]
    assert steps[0] == [0, 0, 0, 0]
    assert steps[-1] == [4, 16, 16, 16]
    assert [row.round for row in seen] == [round(sum(each) / 4) for each in steps]
    assert [each[1] for each in steps] == [0, 4, 8, 12, 16]
    last = seen[-1]
    assert last.free_run is not None
    assert last.accuracy is not None
    assert last.accuracy > 0.3 > (seen[0].accuracy or 0.0)
    assert all(sum(counts) for counts in last.free_run.staleness)
    assert sum(last.bytes_sent) > sum(seen[1].bytes_sent) > 0


def test_without_a_time_each_node_makes_its_steps(tmp_path: Path) -> None:
    ready, _ = prepared(
        tmp_path, DIGITS, SWIFT, {"duration_s": None, "evaluate_every_s": None, "rounds": 11, "evaluate_every": 4}
    )
    _, seen = ran(ready)
    assert [row.free_run.steps for row in seen if row.free_run] == [[n] * 4 for n in (0, 4, 8, 11)]
    assert [row.seconds for row in seen] == [0.0, 2.0, 4.0, 5.5]


def test_a_row_shows_the_models_of_its_time_not_later_ones(tmp_path: Path) -> None:
    """The run to 2 s and its first half: the rows until then are the same, whatever came after."""
    whole, _ = prepared(tmp_path, DIGITS, SWIFT)
    half, _ = prepared(tmp_path, DIGITS, SWIFT, {"duration_s": 1.2})
    for one, other in zip(ran(whole)[1][:3], ran(half)[1], strict=False):
        assert one == other


def test_a_log_is_the_same_each_time_and_replays_the_run(tmp_path: Path) -> None:
    clock = {**CLOCK, "loss": 0.1, "varies": "exponential", "log": True}
    logged = prepared(tmp_path, DIGITS, SWIFT, {"algorithm": "ad-psgd", "clock": clock})[0]
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    models, _ = ran(logged, one)
    ran(logged, other)
    assert (one / EVENTS).read_bytes() == (other / EVENTS).read_bytes()
    again = {"clock": {"replay": str(one / EVENTS), "log": True}}
    replayed, seen = ran(prepared(tmp_path, DIGITS, SWIFT, {"algorithm": "ad-psgd"}, again)[0], other)
    assert all(torch.equal(one, other) for one, other in zip(models, replayed, strict=True))
    assert (one / EVENTS).read_bytes() == (other / EVENTS).read_bytes()
    assert seen[-1].seconds >= 2.0


def test_a_synchronous_method_on_the_same_clock_replays_too(tmp_path: Path) -> None:
    clock = {**CLOCK, "loss": 0.1, "varies": {"name": "two-speed", "slowdown": 3}, "log": True}
    plain = {"algorithm": "dsgd", "duration_s": None, "evaluate_every_s": None}
    models, seen = ran(prepared(tmp_path, DIGITS, SWIFT, plain, {"clock": clock})[0], tmp_path)
    replay = {"clock": {"replay": str(tmp_path / EVENTS)}}
    replayed, again = ran(prepared(tmp_path, DIGITS, SWIFT, plain, replay)[0])
    assert [row.seconds for row in seen] == [row.seconds for row in again]
    assert all(torch.equal(one, other) for one, other in zip(models, replayed, strict=True))
    untimed, _ = ran(prepared(tmp_path, DIGITS, SWIFT, plain, {"clock": None})[0])
    assert all(torch.equal(one, other) for one, other in zip(models, untimed, strict=True)), "time moves no exchange"


def test_both_kinds_stand_in_one_comparison(tmp_path: Path) -> None:
    ready, _ = prepared(
        tmp_path,
        DIGITS,
        SWIFT,
        {"compare": [{"algorithm": "dsgd"}], "baselines": [], "target": 0.4, "rounds": 30, "duration_s": 4.0},
    )
    experiment = load(tmp_path / "experiment.yaml").experiment
    found = compare_simulated(experiment, tmp_path / "run", "a command", lambda *_: None)
    swift, dsgd = found.methods
    assert found.clock == "virtual"
    assert swift.seconds_to_target is not None
    assert dsgd.seconds_to_target is not None
    assert swift.seconds_to_target < dsgd.seconds_to_target
    rows = (tmp_path / "run" / "00-swift-ring" / "seed-0" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["free_run"]["steps"] == [8, 32, 32, 32]
    assert ready.label == "swift ring"


def test_the_mean_times_are_those_that_were_asked_for(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("0.1,1,2,3\n0.3,1,2,5\n")
    means = {
        "log-normal": 1.0,
        "{name: exponential, least: 0.4}": 1.0,
        "{name: two-speed, slowdown: 5, share: 0.25}": 2.0,
        "{name: trace, file: times.csv}": 0.2,
    }
    for varies, mean in means.items():
        experiment = load(example(tmp_path), ["clock.starving=7", f"clock.varies={varies}"]).experiment
        assert experiment.clock is not None
        first = factors_of(experiment.clock, 4, 0, tmp_path)[0]
        drawn = [next(first) for _ in range(4000)]
        assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.05), varies
        assert min(drawn) >= (0.4 if "least" in varies else 0.0)


def example(folder: Path) -> Path:
    clock = {key: value for key, value in CLOCK.items() if key != "gradient_s"}
    prepared(folder, DIGITS, SWIFT, {"clock": clock})
    return folder / "experiment.yaml"


def test_a_crash_and_a_straggler_are_where_the_file_says(tmp_path: Path) -> None:
    clock = {
        **CLOCK,
        "crashes": [{"node": 1, "from_s": 0.3, "until_s": 1.3, "rejoin": "neighbor"}],
        "stragglers": [{"node": 2, "slowdown": 2}, {"node": 3, "every_s": 0.2, "lasting_s": 0.1}],
    }
    _, seen = ran(prepared(tmp_path, DIGITS, SWIFT, {"clock": clock})[0])
    assert seen[-1].free_run is not None
    steps = seen[-1].free_run.steps
    assert steps[0] == 4
    assert 6 <= steps[1] <= 8, "a second of two is lost"
    assert steps[2] == 8
    assert steps[3] < 16


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no clock": ({"clock": None}, "swift is asynchronous: what happens depends on time"),
    "no time": ({"clock": {"gradient_s": [0.0, 1, 1, 1]}}, "found a gradient that takes 0 s"),
    "no such straggler": ({"clock": {"stragglers": [{"node": 4}]}}, "found node 4; required: one of 0 to 3"),
    "half a spell": ({"clock": {"crashes": [{"node": 1, "every_s": 3}]}}, "every_s and lasting_s belong together"),
    "backwards": ({"clock": {"crashes": [{"node": 1, "from_s": 3, "until_s": 2}]}}, "required: later than from_s, 3 s"),
    "hasty": ({"clock": {"loss": 0.1, "latency_s": 0.1}}, "required: more than 0.2 s"),
    "no log": ({"clock": {"replay": "nowhere.jsonl"}}, "nowhere.jsonl cannot be read"),
    "a log and times": ({"clock": {"replay": "x", "gradient_s": 1.0}}, "leave gradient_s out"),
    "a trace of nothing": ({"clock": {"varies": {"name": "trace", "file": "x.csv"}}}, "x.csv cannot be read"),
    "seconds of no time": ({"duration_s": None}, "found no duration_s"),
    "a changing graph": ({"topology": {"name": "ring", "schedule": "matchings"}}, "changes from turn to turn"),
    "weights for pairs": (
        {"topology": {"name": "ring", "weights": "uniform"}, "algorithm": "ad-psgd"},
        "ad-psgd uses no mixing weights: leave weights out",
    ),
    "a directed graph for pairs": (
        {"topology": "directed_exponential", "algorithm": "ad-psgd", "nodes": 8, "clock": {"gradient_s": 1.0}},
        "needs one that is symmetric",
    ),
    "weights beside those by influence": (
        {"topology": {"name": "ring", "weights": "uniform"}, "algorithm": {"name": "swift", "weights": "ccs"}},
        "swift uses no mixing weights: leave weights out",
    ),
    "influence for too few": (
        {"algorithm": {"name": "swift", "weights": "ccs", "influence": [1, 2]}},
        "found 2 numbers of influence; required: one for each of the 4 nodes",
    ),
    "no influence at all": (
        {"algorithm": {"name": "swift", "weights": "ccs", "influence": [1, 2, 0, 1]}},
        "influence.2",
    ),
}


@pytest.mark.parametrize("which", BAD)
def test_what_does_not_fit_is_refused(which: str, tmp_path: Path) -> None:
    changed, told = BAD[which]
    with pytest.raises(ConfigError, match=told):
        refuse_unsimulated(prepared(tmp_path, DIGITS, SWIFT, changed)[0])


def test_loops_of_rounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="has steps of its own pace"):
        algorithm_named("swift", sgd(0.1))


@pytest.mark.parametrize("algorithm", ["swift", "async-gradient-push"])
def test_bytes_are_foretold_for_nodes_that_are_equally_fast(algorithm: str, tmp_path: Path) -> None:
    alike: dict[str, Any] = {"clock": {"gradient_s": 0.125, "latency_s": 0.0}, "rounds": 6}
    alike |= {"duration_s": None, "evaluate_every_s": None}
    ready, _ = prepared(tmp_path, DIGITS, SWIFT, alike, {"algorithm": algorithm})
    _, seen = ran(ready)
    assert seen[-1].bytes_sent[0] == 6 * bytes_per_round(ready, 0)


@pytest.mark.parametrize(
    "topology", ["ring", "star", {"name": "tree", "branching": 3}, {"name": "ring", "schedule": "matchings"}]
)
def test_bytes_of_pairs_are_foretold_in_the_mean(topology: Any, tmp_path: Path) -> None:
    """Nodes are nearly equally fast, which spreads their steps over time. A node of degree k is asked by each of its
    neighbors as often as that chooses it: the hub of a star by all in each step, and it answers all."""
    times = {"gradient_s": [0.125 * 1.001**node for node in range(6)], "latency_s": 0.0}
    spread = {"clock": times, "nodes": 6, "rounds": 400, "evaluate_every": 400, "diagnostics": []}
    spread |= {"duration_s": None, "evaluate_every_s": None, "model": "linear", "optimizer": {"lr": 0.01}}
    ready, _ = prepared(tmp_path, DIGITS, SWIFT, spread, {"algorithm": "ad-psgd", "topology": topology})
    _, seen = ran(ready)
    foretold = [400 * bytes_per_round(ready, node) for node in range(6)]
    assert sum(seen[-1].bytes_sent) == pytest.approx(sum(foretold), rel=0.02)
    assert seen[-1].bytes_sent == pytest.approx(foretold, rel=0.08)


def test_what_foretold_bytes_are_of_is_said(tmp_path: Path) -> None:
    def told(**changed: Any) -> str:
        return foretold_of_free_run(prepared(tmp_path, DIGITS, SWIFT, changed)[0]) or "nothing"

    assert told(algorithm="dsgd", duration_s=None, evaluate_every_s=None) == "nothing"
    assert told().startswith("the bytes are of a step of its own")
    assert "a reply to each that comes" in told(algorithm="ad-psgd")
    assert "the eigenvalues above are not theirs" in told(algorithm={"name": "swift", "weights": "ccs"})
    assert "over with every 3 gradients" in told(algorithm="async-sgd", topology="star", partition="iid")


def test_virtual_time_is_drawn_from_the_runs_seed(tmp_path: Path) -> None:
    prepared(tmp_path, DIGITS, SWIFT, {"clock": {**CLOCK, "varies": "exponential"}})
    clock = load(tmp_path / "experiment.yaml").experiment.clock
    assert clock is not None
    ends = [virtual_time(clock, 4, seed).gradient_until_s(1, 0.0) for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]
    crash = load(example(tmp_path), ["clock.crashes=[{node: 1, every_s: 2, lasting_s: 1}]"]).experiment.clock
    assert crash is not None
    spells = [spells_of(crash.crashes[0], 4, seed, ("clock", "crashes", 0)).next_end_s(0.0) for seed in (0, 0, 1)]
    assert spells[0] == spells[1] != spells[2]
    assert own_method(load(tmp_path / "experiment.yaml").experiment).label == "swift ring"
