"""A free run that was stopped at a cut and resumed equals the one that never was: in virtual time bit for bit."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from decentral.algorithms import ASYNCHRONOUS_METHODS, HUB_METHODS
from decentral.errors import ConfigError, PreemptedError
from decentral.measure.checkpoints import Checkpoints
from decentral.measure.virtual import EVENTS
from tests.measure.test_resume import NODES, Place, models

CLOCK: dict[str, Any] = {
    "gradient_s": [0.5, 0.125, 0.2],
    "varies": "exponential",
    "latency_s": 0.02,
    "rate_bit_s": 1e6,
    "loss": 0.1,
    "log": True,
}
STEPS: dict[str, Any] = {"clock": CLOCK, "optimizer": {"lr": 0.1}, "checkpoint": {"every": 5, "keep": 9}}
TIME: dict[str, Any] = {"duration_s": 4.0, "evaluate_every_s": 0.7, "checkpoint": {"every_s": 1.1, "keep": 9}}
STAR: dict[str, Any] = {"topology": "star"}
DOWN = {
    "crashes": [
        {"node": 1, "from_s": 0.6, "until_s": 1.9, "rejoin": "neighbor"},
        {"node": 2, "every_s": 0.5, "lasting_s": 0.4},
    ],
    "stragglers": [{"node": 0, "every_s": 0.5, "lasting_s": 0.5}],
}

VARIATIONS: dict[str, dict[str, Any]] = {
    "swift": {"algorithm": "swift", "optimizer": {"lr": 0.1, "momentum": 0.9}},
    "swift bounded": {"algorithm": {"name": "swift", "max_delay": 1}},
    "swift for a time": {"algorithm": {"name": "swift", "every": 2}, **TIME},
    "ad-psgd": {"algorithm": "ad-psgd", "model": "resumed_code:normed"},
    "ad-psgd bounded, for a time": {"algorithm": {"name": "ad-psgd", "max_delay": 0}, **TIME},
    "async-gradient-push": {"algorithm": "async-gradient-push", "topology": "star"},
    "async-gradient-push bounded": {
        "algorithm": {"name": "async-gradient-push", "max_delay": 1},
        "clock": {**CLOCK, "node_rate_bit_s": 3e5},
    },
    "async-gradient-push down": {"algorithm": "async-gradient-push", "clock": {**CLOCK, **DOWN}},
    "swift down, for a time": {"algorithm": "swift", "clock": {**CLOCK, **DOWN}, **TIME, "duration_s": 7.0},
    "ad-psgd, one down for ever": {
        "algorithm": "ad-psgd",
        "clock": {**CLOCK, "crashes": [{"node": 1, "from_s": 1.3}]},
        **TIME,
    },
    "async-sgd": {"algorithm": "async-sgd", **STAR},
    "async-sgd for a time": {"algorithm": {"name": "async-sgd", "max_delay": 1}, **STAR, **TIME},
    "ringmaster": {"algorithm": {"name": "ringmaster", "drop_after": 1}, **STAR},
    "dc-asgd": {"algorithm": {"name": "dc-asgd", "adaptive": True, "assign": "random"}, **STAR},
    "fedasync": {"algorithm": {"name": "fedasync", "every": 3, "assign": "shuffled"}, **STAR},
    "fedbuff": {"algorithm": {"name": "fedbuff", "buffer": 3, "every": 2, "assign": "random"}, **STAR},
    "fedfix for a time": {"algorithm": {"name": "fedfix", "every": 2, "every_s": 0.4}, **STAR, **TIME},
}


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def record(run: Path) -> Sequence[object]:
    return models(run), (run / "metrics.jsonl").read_text(), (run / EVENTS).read_text()


def stopped(run: Path, name: str) -> Path:
    """A copy of a run; it is cut back to one of its checkpoints by going on from that."""
    return Path(shutil.copytree(run, run.parent / name))


def test_everyone_is_stopped_and_resumed() -> None:
    sections = [variation["algorithm"] for variation in VARIATIONS.values()]
    named = {section if isinstance(section, str) else section["name"] for section in sections}
    assert {*ASYNCHRONOUS_METHODS, *HUB_METHODS} == named


@pytest.mark.parametrize("variation", VARIATIONS.values(), ids=VARIATIONS)
def test_it_goes_on_with_the_same_bits(variation: dict[str, Any], tmp_path: Path) -> None:
    """From its first checkpoint, and its last, where nothing is left to do: models, metrics and all events."""
    place = Place(tmp_path, **STEPS | variation)
    whole = place.simulate("whole")
    first, *_, last = Checkpoints(whole).rounds()
    assert 0 < first < last
    for round in (first, last):
        again = stopped(whole, f"stopped-{round}")
        for node in range(NODES):
            (again / "models" / f"node-{node}.safetensors").unlink()
        place.simulate(again.name, resume=f"round-{round}")
        assert record(again) == record(whole), round
        assert checkpoints(again) == checkpoints(whole), round


SIGNALED = '''
import os, signal
from dataclasses import dataclass
from decentral.algorithms.swift import Swift

@dataclass(frozen=True, kw_only=True)
class Signaled(Swift):
    """Sends this process the signal SIGNAL in the sixth step of node 1, once."""

    async def step(self, state, peer):
        if peer.round == 6 and peer.node == 1 and (name := os.environ.pop("SIGNAL", "")):
            os.kill(os.getpid(), getattr(signal, name))
        return await super().step(state, peer)
'''


def test_a_signal_cuts_the_run_where_all_end_their_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that SIGTERM ended and that goes on equals one that SIGUSR1 cut there. Some nodes had kept what is due."""
    (tmp_path / "signaled_swift.py").write_text(SIGNALED)
    place = Place(tmp_path, **STEPS, algorithm="signaled_swift:Signaled", evaluate_every=6)
    monkeypatch.setenv("SIGNAL", "SIGUSR1")
    whole = place.simulate("whole", checkpoint={"keep": 9})
    monkeypatch.setenv("SIGNAL", "SIGTERM")
    with pytest.raises(PreemptedError, match=r"the checkpoint of round 6 is whole: go on with `decentral simulate"):
        place.simulate("run", checkpoint={"keep": 9})
    assert checkpoints(whole) == checkpoints(tmp_path / "run") == ["round-00000006"]
    saved = [Checkpoints(whole).of(6) / f"node-{node}.json" for node in range(NODES)]
    courses = [json.loads(path.read_text())["course"]["object"][2] for path in saved]
    assert [course["steps"] for course in courses] == [5, 7, 5]
    assert [len(course["kept"]["dict"]) for course in courses] == [0, 1, 0]
    assert record(place.simulate("run", resume="", checkpoint={})) == record(whole)
    assert len((whole / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_job_of_more_steps_than_lie_between_cuts_comes_to_its_end(tmp_path: Path) -> None:
    job = {"name": "fedasync", "every": 7}
    run = Place(tmp_path, **STEPS, topology="star", algorithm=job).simulate("run", checkpoint={"every": 3})
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["bytes_sent"][1] > 0 for row in rows] == [False, True, True, True, True]
    assert sum(rows[-1]["free_run"]["staleness"][0]) == 4, "two jobs of each of two nodes"


@pytest.mark.parametrize("algorithm", ["async-gradient-push", "fedasync"])
def test_it_moves_between_ranks_and_the_simulator(algorithm: str, tmp_path: Path) -> None:
    """No bits are promised where time is real: each goes on from where the other was."""
    place = Place(tmp_path, **STEPS, topology="star", algorithm=algorithm)
    place.on_ranks("run", rounds=5)
    place.simulate("run", resume="", rounds=10)
    run = place.on_ranks("run", resume="")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["free_run"]["steps"] for row in rows] == [[n] * NODES for n in (0, 4, 8, 12, 14)]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert rows[-1]["accuracy"] > rows[0]["accuracy"]
    for checkpoint in (run / "checkpoints").iterdir() if algorithm == "async-gradient-push" else ():
        weights = [load_file(checkpoint / f"node-{node}.safetensors")["state.weight"] for node in range(NODES)]
        assert sum(map(float, weights)) == pytest.approx(NODES, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "told", "at"),
    [
        ({**TIME, "checkpoint": {"every": 5}}, "give every_s, the seconds from one", ("checkpoint", "every")),
        ({"checkpoint": {"every_s": 5}}, "since there is no duration_s: give every", ("checkpoint", "every_s")),
        ({"algorithm": "dsgd", "checkpoint": {"every_s": 5}}, "runs in rounds: give every", ("checkpoint", "every_s")),
    ],
)
def test_the_other_unit_is_refused(change: dict[str, Any], told: str, at: Sequence[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        Place(tmp_path, **STEPS | {"algorithm": "swift"} | change).simulate("run")
    assert refused.value.at == at


def test_what_would_not_be_the_same_run_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path, **STEPS | TIME, algorithm="swift")
    run = place.simulate("run")
    with pytest.raises(ConfigError, match=r"found 9\.0; the checkpoint has 4\.0"):
        place.simulate("run", resume="", duration_s=9.0)
    log = (run / EVENTS).read_text()
    (run / EVENTS).write_text(log[:99])
    with pytest.raises(ConfigError, match="the event log has 99 bytes, and had"):
        place.simulate("run", resume=f"round-{Checkpoints(run).rounds()[0]}")
