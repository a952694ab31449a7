"""Methods of a hub from an experiment file: who holds which samples, what is refused, warned of and recorded."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from decentral.errors import ConfigError
from decentral.measure.comparison import Evaluation
from decentral.measure.plan import bytes_per_round, memory_bytes
from decentral.measure.run import simulate
from decentral.transport.frames import HEADER_BYTES, payload_bytes
from tests.contract.test_experiment import DIGITS, prepared

HUB: dict[str, Any] = {
    "nodes": 5,
    "partition": "iid",
    "topology": "star",
    "algorithm": "async-sgd",
    "optimizer": {"lr": 0.1},
    "clock": {"gradient_s": [1.0, 0.1, 0.1, 0.1, 0.5], "latency_s": 0.001},
    "duration_s": 4.0,
    "evaluate_every_s": 1.0,
}
METHODS: dict[str, dict[str, Any]] = {
    "async-sgd": {"assign": "shuffled"},
    "ringmaster": {"drop_after": 10},
    "dc-asgd": {},
    "fedasync": {"every": 5},
    "fedbuff": {"every": 5, "buffer": 2},
    "fedfix": {"every": 5, "every_s": 0.3},
}


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_and_its_steps_and_delays_are_recorded(name: str, tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, DIGITS, HUB, {"algorithm": {"name": name, **METHODS[name]}})
    seen: list[Evaluation] = []
    simulate(ready, seen.append)
    last = seen[-1]
    assert [row.seconds for row in seen[:-1]] == [0.0, 1.0, 2.0, 3.0]
    assert 4.0 <= last.seconds < 5.0, "until the last of the steps that were under way"
    assert last.accuracy is not None
    assert last.accuracy > 0.75
    assert last.free_run is not None
    assert sum(last.free_run.staleness[0]) > 5
    assert last.free_run.staleness[1:] == [[]] * 4
    others = last.free_run.steps[1:]
    assert 0 <= sum(others) / 4 - last.free_run.steps[0] <= METHODS[name].get("every", 1), "jobs that were under way"
    if name == "async-sgd":
        assert max(others) - min(others) <= 4, "shuffled, each gets as many, some of which wait at the slow one"
    elif name != "fedfix":
        assert last.free_run.steps[1] >= 35
        assert last.free_run.steps[4] <= 9


def test_the_samples_of_the_hub_are_dealt_to_the_others(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, DIGITS, HUB)
    whole, trained = torch.cat(ready.task.shards), torch.cat(ready.training.shards[1:])
    assert torch.equal(whole.sort().values, trained.sort().values)
    assert torch.equal(ready.training.shards[0], ready.task.shards[0])
    held = [len(shard) for shard in ready.training.shards[1:]]
    assert max(held) - min(held) <= 1
    other, _ = prepared(tmp_path, DIGITS, HUB, {"algorithm": "swift"})
    assert other.training is other.task


def test_bytes_are_foretold_for_nodes_that_are_equally_fast(tmp_path: Path) -> None:
    alike = {"clock": {"gradient_s": 0.1, "latency_s": 0.0}, "duration_s": None, "evaluate_every_s": None, "rounds": 6}
    ready, _ = prepared(tmp_path, DIGITS, HUB, alike)
    seen: list[Evaluation] = []
    simulate(ready, seen.append)
    vector = torch.empty(ready.task.parameters)
    message = HEADER_BYTES + payload_bytes((vector, torch.empty(1)))
    refusal = HEADER_BYTES + payload_bytes((torch.zeros(1, dtype=torch.uint8),))
    assert seen[-1].bytes_sent == [4 * 7 * message] + [6 * message + refusal] * 4
    assert bytes_per_round(ready, 0) == pytest.approx(4 * 7 * message / 6, rel=1e-3)
    assert bytes_per_round(ready, 1) == pytest.approx(message, rel=1e-3)
    assert memory_bytes(ready, 0)["model"] == 4 * ready.task.parameters


@pytest.mark.parametrize("name", METHODS)
def test_bytes_of_every_method_are_foretold(name: str, tmp_path: Path) -> None:
    """All but equally fast, behind links that take some time. Jobs of 5 gradients: of 40, one more is handed out."""
    clock = {"gradient_s": [1.0, 0.1, 0.099, 0.101, 0.1], "latency_s": 0.001}
    even: dict[str, Any] = {"clock": clock, "duration_s": None, "evaluate_every_s": None, "rounds": 200}
    even |= {"evaluate_every": 200, "diagnostics": [], "model": "linear", "optimizer": {"lr": 0.01}}
    ready, _ = prepared(tmp_path, DIGITS, HUB, even, {"algorithm": {"name": name, **METHODS[name]}})
    seen: list[Evaluation] = []
    simulate(ready, seen.append)
    foretold = [200 * bytes_per_round(ready, node) for node in range(5)]
    assert seen[-1].bytes_sent == pytest.approx(foretold, rel=0.03)


def test_where_nodes_hold_different_data_what_favors_fast_ones_is_warned_of(tmp_path: Path) -> None:
    skewed = {"partition": {"name": "dirichlet", "alpha": 0.5}}
    warned = {
        "async-sgd": ({}, "async-sgd with assign: ready, by which fast nodes get more jobs"),
        "async-sgd rule": ({"assign": "random", "rule": "koloskova"}, "async-sgd with rule: koloskova"),
        "ringmaster": ({"drop_after": 4}, "ringmaster with drop_after: 4, by which late gradients are dropped"),
        "fedfix": ({"every_s": 1.0, "weights": "identical"}, "fedfix with weights: identical"),
    }
    for which, (options, told) in warned.items():
        asked = {"algorithm": {"name": which.split()[0], **options}}
        with pytest.warns(UserWarning, match=rf"{told}: nodes hold different data \(dirichlet\)"):
            prepared(tmp_path, DIGITS, HUB, skewed, asked)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            prepared(tmp_path, DIGITS, HUB, asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared(tmp_path, DIGITS, HUB, skewed, {"algorithm": {"name": "async-sgd", "assign": "shuffled"}})
        prepared(tmp_path, DIGITS, HUB, skewed, {"algorithm": {"name": "fedfix", "every_s": 1.0}})


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "ring": ({"topology": "ring"}, "found ring with 5 nodes and 5 links; node 0 serves all others: use topology: star"),
    "momentum": ({"optimizer": {"lr": 0.1, "momentum": 0.9}}, "async-sgd takes the local step itself"),
    "weights": ({"topology": {"name": "star", "weights": "metropolis"}}, "async-sgd uses no mixing weights"),
}


@pytest.mark.parametrize("which", BAD)
def test_what_does_not_fit_is_refused(which: str, tmp_path: Path) -> None:
    changed, told = BAD[which]
    with pytest.raises(ConfigError, match=told):
        prepared(tmp_path, DIGITS, HUB, changed)
