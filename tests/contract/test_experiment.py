"""One experiment file through the whole training loop: simulated and on real ranks it leaves the same models."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from decentral.errors import ConfigError
from decentral.fused import CHUNK
from decentral.loading import load
from decentral.measure.comparison import Evaluation
from decentral.measure.prepared import Prepared, prepare
from decentral.measure.run import digest, run_on, simulate
from decentral.methods import methods
from decentral.training.objective import flat
from decentral.transport.world import World
from tests.contract.ranks import WIRES, on_ranks

NODES = 4

DIGITS: dict[str, Any] = {
    "nodes": NODES,
    "rounds": 15,
    "batch_size": 16,
    "evaluate_every": 5,
    "data": "digits",
    "partition": {"name": "dirichlet", "alpha": 0.5},
    "model": {"name": "mlp", "hidden": [32]},
    "optimizer": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    "topology": "ring",
    "algorithm": "dsgd",
}

QUADRATICS: dict[str, Any] = {
    "nodes": 8,
    "rounds": 200,
    "evaluate_every": 1000,
    "data": {"name": "quadratics", "dimension": 10},
    "model": {"name": "linear", "bias": False},
    "optimizer": {"lr": 0.5},
    "topology": "ring",
    "algorithm": "allreduce",
    "dtype": "float64",
}


def prepared(folder: Path, *parts: dict[str, Any]) -> tuple[Prepared, int]:
    """The file's own method, made ready, and the experiment's digest; later parts replace keys of earlier ones."""
    tree = {key: value for part in parts for key, value in part.items()}
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(tree))
    experiment = load(path).experiment
    return prepare(experiment, methods(experiment)[0], seed=experiment.seeds[0]), digest(experiment)


def simulated(ready: Prepared) -> tuple[list[Tensor], list[Evaluation]]:
    seen: list[Evaluation] = []
    modules = simulate(ready, seen.append)
    return [flat(modules[node]) for node in sorted(modules)], seen


def on_processes(ready: Prepared, run: int, wire: str = "gloo") -> tuple[list[Tensor], list[Evaluation]]:
    seen: list[Evaluation] = []

    def work(world: World) -> Tensor:
        return flat(run_on(world, ready, epoch=1, run=run, observe=seen.append)[world.rank])

    return on_ranks(NODES, work, wire=wire), seen


VARIATIONS: dict[str, dict[str, Any]] = {
    "atc": {"algorithm": {"name": "dsgd", "order": "adapt-then-combine"}},
    "cta": {"algorithm": {"name": "dsgd", "order": "combine-then-adapt"}},
    "awc": {"algorithm": {"name": "dsgd", "order": "adapt-while-communicate"}},
    "every third round": {"algorithm": {"name": "dsgd", "every": 3}},
    "adamw": {"optimizer": {"name": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.1}},
    "awc with adamw": {
        "algorithm": {"name": "dsgd", "order": "adapt-while-communicate"},
        "optimizer": {"name": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.1},
    },
    "bf16": {"algorithm": {"name": "dsgd", "compression": "bf16"}},
    "fp16": {"algorithm": {"name": "dsgd", "compression": "fp16"}},
    "awc bf16": {"algorithm": {"name": "dsgd", "order": "adapt-while-communicate", "compression": "bf16"}},
    "one partner a round": {
        "algorithm": {"name": "dsgd", "order": "combine-then-adapt"},
        "topology": {"name": "ring", "schedule": "matchings"},
    },
    "one partner at random": {
        "algorithm": {"name": "dsgd", "order": "combine-then-adapt"},
        "topology": {"name": "complete", "schedule": {"name": "random-matchings", "seed": 5}},
    },
    "matcha": {
        "algorithm": {"name": "dsgd", "order": "adapt-while-communicate"},
        "topology": {"name": "star", "schedule": {"name": "matcha", "budget": 0.6}},
    },
    "groups of two by leaders": {
        "algorithm": {"name": "hierarchical", "group": 2, "order": "combine-then-adapt"},
    },
    "groups of two by slices": {
        "algorithm": {"name": "hierarchical", "group": 2, "between": "slices", "order": "adapt-while-communicate"}
    },
    "cnn": {"model": {"name": "cnn", "channels": 4}},
    "cnn on a star": {"model": {"name": "cnn", "channels": 4}, "topology": "star"},
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("variation", VARIATIONS.values(), ids=VARIATIONS)
def test_simulation_and_real_ranks_leave_the_same_bits(variation: dict[str, Any], wire: str, tmp_path: Path) -> None:
    ready, run = prepared(tmp_path, DIGITS, variation)
    (alike, observed), (real, observed_too) = simulated(ready), on_processes(ready, run, wire)
    assert ready.task.parameters > CHUNK or "cnn" in str(variation)
    assert all(torch.equal(one, other) for one, other in zip(alike, real, strict=True))
    assert torch.equal(alike[0], alike[1]) == ("hierarchical" in str(variation))
    assert not torch.equal(alike[0], alike[2])
    assert [seen.bytes_sent for seen in observed] == [seen.bytes_sent for seen in observed_too]
    assert [seen.node_accuracy for seen in observed] == [seen.node_accuracy for seen in observed_too]
    assert [seen.round for seen in observed] == [0, 5, 10, 15]
    assert observed[-1].accuracy > 2 * observed[0].accuracy


@pytest.mark.parametrize("model", [{"name": "mlp", "hidden": [32]}, {"name": "cnn", "channels": 4}], ids=["mlp", "cnn"])
def test_all_reduce_agrees_up_to_the_order_of_its_sums(model: dict[str, Any], tmp_path: Path) -> None:
    ready, run = prepared(tmp_path, DIGITS, {"algorithm": "allreduce", "model": model})
    (alike, _), (real, _) = simulated(ready), on_processes(ready, run)
    for one, other in zip(alike, real, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert all(torch.equal(models[0], model) for models in (alike, real) for model in models)


@pytest.mark.parametrize("name", ["ef14", "ef21", "ef21-sgdm", "econtrol", "dqsgd", "diana", "ec-sgd-diana"])
def test_centralized_methods_with_compressed_messages_leave_the_same_bits(name: str, tmp_path: Path) -> None:
    """Each at its defaults."""
    optimizer = {"lr": 0.1, "weight_decay": 1e-4} if name == "econtrol" else DIGITS["optimizer"]
    changed = {"algorithm": name, "optimizer": optimizer, "rounds": 40}
    ready, run = prepared(tmp_path, DIGITS, changed)
    (alike, observed), (real, observed_too) = simulated(ready), on_processes(ready, run)
    assert all(torch.equal(alike[0], model) for model in (*alike, *real))
    assert [seen.bytes_sent for seen in observed] == [seen.bytes_sent for seen in observed_too]
    assert observed[-1].accuracy > 2 * observed[0].accuracy


def test_a_compressor_that_does_not_suit_its_method_is_found_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found top-k of \d+ numbers, which is biased") as refused:
        prepared(tmp_path, DIGITS, {"algorithm": {"name": "dqsgd", "compression": "top-k"}})
    assert refused.value.at == ("algorithm", "compression")


def test_all_reduce_finds_the_known_optimum(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, QUADRATICS)
    models, _ = simulated(ready)
    for model in models:
        torch.testing.assert_close(model, ready.task.data.optimum, rtol=0, atol=1e-12)


def test_gossip_stalls_at_a_bias_that_shrinks_with_the_learning_rate(tmp_path: Path) -> None:
    def bias(lr: float, rounds: int) -> float:
        """Mean square distance of the nodes to the optimum."""
        changed = {"algorithm": "dsgd", "optimizer": {"lr": lr}, "rounds": rounds}
        ready, _ = prepared(tmp_path, QUADRATICS, changed)
        return float((torch.stack(simulated(ready)[0]) - ready.task.data.optimum).square().sum(1).mean())

    stalled, later, gentle = bias(0.2, 120), bias(0.2, 150), bias(0.1, 240)
    assert stalled == pytest.approx(later, rel=1e-3)
    assert 1e-5 < gentle < stalled / 2
