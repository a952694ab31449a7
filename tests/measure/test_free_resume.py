"""A free run that was stopped at a cut and resumed equals the one that never was: in virtual time bit for bit."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from decentral.algorithms import ASYNCHRONOUS_METHODS, HUB_METHODS
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
    "async-gradient-push bounded": {"algorithm": {"name": "async-gradient-push", "max_delay": 1}},
    "async-gradient-push down": {"algorithm": "async-gradient-push", "clock": {**CLOCK, **DOWN}},
    "swift down, for a time": {"algorithm": "swift", "clock": {**CLOCK, **DOWN}, **TIME, "duration_s": 7.0},
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
    """From each of its checkpoints: models, metrics with their seconds, and the log of all events."""
    place = Place(tmp_path, **STEPS | variation)
    whole = place.simulate("whole")
    assert len(checkpoints(whole)) >= 3
    for number, checkpoint in enumerate(checkpoints(whole)):
        name = f"round-{int(checkpoint.removeprefix('round-'))}"
        again = stopped(whole, f"stopped-{number}")
        for path in [again / "models" / f"node-{node}.safetensors" for node in range(NODES)]:
            path.unlink()
        place.simulate(again.name, resume=name)
        assert record(again) == record(whole), name
        assert checkpoints(again) == checkpoints(whole), name
