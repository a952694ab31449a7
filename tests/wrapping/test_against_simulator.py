"""Four ranks, each with a loop as a user writes it: what they learn is what the simulator learns."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn.functional import cross_entropy

from decentral.algorithms.hierarchical import Between
from decentral.loading import load
from decentral.measure.prepared import Prepared, prepare
from decentral.measure.run import simulate
from decentral.methods import methods
from decentral.training.algorithm import own_algorithm
from decentral.training.objective import flat
from decentral.transport.world import World
from decentral.wrapping.session import Session
from tests.contract.ranks import WIRES, on_ranks
from tests.wrapping.methods import (
    CENTRAL,
    COMPRESSED,
    CONTROLLED,
    CORRECTED,
    LITTLE,
    METHODS,
    OWNING,
    REDUCING,
    SLOW,
    SUMMED,
    Doubling,
    Drifting,
    TwoGradients,
)

NODES = 4

DIGITS: dict[str, Any] = {
    "nodes": NODES,
    "rounds": 12,
    "batch_size": 16,
    "data": "digits",
    "partition": {"name": "dirichlet", "alpha": 0.5},
    "model": {"name": "mlp", "hidden": [32]},
    "optimizer": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    "topology": "ring",
}
OWN: dict[str, tuple[Any, dict[str, Any]]] = {
    "a memory, and a gradient elsewhere": ({"name": Drifting, "decay": 0.25}, {"decay": 0.25}),
    "two gradients a round": (TwoGradients, {}),
    "a gradient changed in place": (Doubling, {}),
}


def prepared(folder: Path, algorithm: Any, **more: Any) -> Prepared:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**DIGITS, "algorithm": algorithm, **more}))
    experiment = load(path).experiment
    return prepare(experiment, methods(experiment)[0], seed=0)


def in_ordinary_loops(ready: Prepared, algorithm: Any, steps: int, wire: str = "gloo") -> list[Tensor]:
    """Each rank's model after a loop as a user writes it, over the same samples as the simulator's node."""

    def work(world: World) -> Tensor:
        session, task = Session(world), ready.task
        module = task.module()
        inner = ready.local.factory(module.parameters(), **ready.local.options)
        model, optimizer = session.wrap(module, inner, algorithm=algorithm, topology=ready.method.topology.name)
        taken = task.batches(world.rank)
        for _ in range(steps):
            inputs, targets = taken.next()
            cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        session.close()
        return flat(model)

    return on_ranks(NODES, work, wire=wire)


def same(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 0.0) -> bool:
    return all(torch.allclose(one, other, rtol=0, atol=tolerance) for one, other in zip(ours, theirs, strict=True))


GROUPED: dict[str, dict[str, Any]] = {
    **METHODS,
    **{
        f"pairs by {between}": {"name": "hierarchical", "group": 2, "between": between} for between in get_args(Between)
    },
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("algorithm", GROUPED.values(), ids=GROUPED)
def test_a_wrapped_loop_is_the_simulator(algorithm: Mapping[str, Any], wire: str, tmp_path: Path) -> None:
    """Bit for bit; baselines that use the engine's all-reduce up to the order of its sums."""
    ready = prepared(tmp_path, algorithm)
    modules = simulate(ready, lambda _: None)
    expected = [flat(modules[node]) for node in range(NODES)]
    models = in_ordinary_loops(ready, algorithm, DIGITS["rounds"], wire)
    assert same(models, expected, 1e-6 if algorithm["name"] in REDUCING else 0.0)
    assert not torch.equal(models[0], ready.task.start())


BARE = {"lr": 0.05, "weight_decay": 1e-4}


MORE = CORRECTED | CONTROLLED | OWNING | COMPRESSED | SUMMED | SLOW | LITTLE | CENTRAL


@pytest.mark.filterwarnings("ignore:.*D2 needs all above")
@pytest.mark.parametrize("algorithm", MORE.values(), ids=MORE)
def test_so_is_one_that_corrects_its_steps_or_takes_them_itself(algorithm: Mapping[str, Any], tmp_path: Path) -> None:
    optimizer = BARE if algorithm in OWNING.values() else DIGITS["optimizer"]
    topology = "tree" if algorithm["name"] == "relay-sgd" else "ring"
    ready = prepared(tmp_path, algorithm, optimizer=optimizer, topology=topology)
    modules = simulate(ready, lambda _: None)
    models = in_ordinary_loops(ready, algorithm, DIGITS["rounds"], "shared-memory")
    expected = [flat(modules[node]) for node in range(NODES)]
    assert same(models, expected, 1e-6 if algorithm["name"] in REDUCING else 0.0)
    assert not torch.equal(models[0], ready.task.start())


@pytest.mark.parametrize(("named", "options"), OWN.values(), ids=OWN)
def test_so_is_one_with_an_algorithm_of_the_users_own(named: Any, options: dict[str, Any], tmp_path: Path) -> None:
    ready = prepared(tmp_path, "dsgd")
    kind = named["name"] if isinstance(named, dict) else named
    algorithm = own_algorithm(kind, options, ready.local, "own", ())
    modules = simulate(replace(ready, algorithm=algorithm), lambda _: None)
    steps = DIGITS["rounds"] * (2 if kind is TwoGradients else 1)
    assert same(in_ordinary_loops(ready, named, steps), [flat(modules[node]) for node in range(NODES)])
