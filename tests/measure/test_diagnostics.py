"""Diagnostics against what is known: quadratics' gradients, autograd, predictions by hand; and real as simulated."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from decentral.loading import load
from decentral.measure import diagnostics
from decentral.measure.comparison import Evaluation
from decentral.measure.diagnostics import diversity, edges_of, gradient_of, sampled, spread
from decentral.measure.evaluation import Evaluator
from decentral.measure.prepared import Prepared, prepare
from decentral.measure.run import run_on, simulate
from decentral.methods import methods
from decentral.training.objective import flat
from decentral.transport.lockstep import LockstepDriver
from tests.contract.ranks import on_ranks

DIGITS: dict[str, Any] = {
    "nodes": 4,
    "rounds": 6,
    "batch_size": 8,
    "evaluate_every": 3,
    "data": "digits",
    "partition": {"name": "dirichlet", "alpha": 0.5},
    "model": {"name": "mlp", "hidden": [16]},
    "algorithm": "dsgd",
    "topology": "ring",
    "diagnostics": ["gradients", "predictions", "edges"],
}
QUADRATICS = {
    "data": {"name": "quadratics", "zeta2": 0.7},
    "model": {"name": "linear", "bias": False},
    "partition": None,
    "dtype": "float64",
}


def prepared(folder: Path, **sections: Any) -> Prepared:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (DIGITS | sections).items() if value is not None}))
    experiment = load(path).experiment
    return prepare(experiment, methods(experiment)[0], seed=0)


def evaluated(ready: Prepared, models: dict[int, torch.Tensor]) -> Evaluation:
    """Of some models that were not trained."""
    seen: list[Evaluation] = []
    objectives = {node: ready.task.objective(node) for node in models}
    driver = LockstepDriver({node: one.gradient for node, one in objectives.items()})
    modules = {node: one.module for node, one in objectives.items()}
    evaluator = Evaluator(ready.task, driver, modules, seen.append, ready.diagnostics, ready.topology)
    evaluator(0, 0.0, models, {})
    return seen[0]


def scattered(ready: Prepared, around: torch.Tensor, by: float) -> dict[int, torch.Tensor]:
    """Models around a point, their mean being that point."""
    noise = torch.randn(ready.nodes, len(around), dtype=around.dtype, generator=torch.Generator().manual_seed(0))
    return dict(enumerate(around + by * (noise - noise.mean(dim=0))))


def test_heterogeneity_at_the_optimum_is_that_of_the_quadratics(tmp_path: Path) -> None:
    ready = prepared(tmp_path, nodes=8, **QUADRATICS)
    row = evaluated(ready, scattered(ready, ready.task.data.optimum, 0.3))
    assert row.heterogeneity == pytest.approx(0.7, rel=1e-6)
    assert row.gradient_diversity > 1e6  # the gradients cancel there
    assert row.disagreement is None
    assert row.accuracy_spread is None


def test_heterogeneity_and_diversity_far_from_it_by_hand(tmp_path: Path) -> None:
    ready = prepared(tmp_path, nodes=8, **QUADRATICS)
    at, data = ready.task.data.optimum + 1, ready.task.data
    rows = []
    for shard in ready.task.shards:
        a, b = data.train_inputs[shard], data.train_targets[shard]
        rows.append(a.T @ (a @ at - b) / len(shard))
    g = torch.stack(rows)
    row = evaluated(ready, dict.fromkeys(range(8), at))
    assert row.heterogeneity == pytest.approx(float((g - g.mean(0)).square().sum(1).mean()), rel=1e-9)
    assert row.gradient_diversity == pytest.approx(float(g.square().sum(1).mean() / g.mean(0).square().sum()), rel=1e-9)


def test_nodes_with_the_same_data_have_no_heterogeneity(tmp_path: Path) -> None:
    ready = prepared(tmp_path)
    same = replace(ready, task=replace(ready.task, shards=(torch.arange(100),) * 4))
    row = evaluated(same, dict.fromkeys(range(4), same.task.start()))
    assert row.heterogeneity == pytest.approx(0, abs=1e-9)
    assert row.gradient_diversity == pytest.approx(1)
    assert evaluated(ready, dict.fromkeys(range(4), ready.task.start())).heterogeneity > 0.1


def test_the_sample_is_fixed_and_the_nodes_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = prepared(tmp_path).task
    assert torch.equal(sampled(task, 1)[0], task.samples(1)[0][: len(task.shards[1])])
    monkeypatch.setattr(diagnostics, "SAMPLE", 20)
    inputs, targets = sampled(task, 1)
    assert (len(inputs), len(targets)) == (20, 20)
    assert torch.equal(inputs, sampled(task, 1)[0])
    own = {tuple(row) for row in task.samples(1)[0].flatten(1).tolist()}
    assert {tuple(row) for row in inputs.flatten(1).tolist()} <= own


def test_a_gradient_is_taken_without_dropout_and_leaves_no_trace() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    inputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])
    found = gradient_of(module, nn.functional.cross_entropy, inputs, targets)
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    module.eval()
    nn.functional.cross_entropy(module(inputs), targets).backward()
    assert torch.equal(found, torch.cat([parameter.grad.flatten() for parameter in module.parameters()]))


def test_disagreement_counts_other_predictions(tmp_path: Path) -> None:
    ready = prepared(tmp_path)
    models = scattered(ready, ready.task.start(), 0.2)
    row, module, inputs = evaluated(ready, models), ready.task.module(), ready.task.data.test_inputs

    def predictions(x: torch.Tensor) -> torch.Tensor:
        nn.utils.vector_to_parameters(x, module.parameters())
        return module(inputs).argmax(1)

    whole = predictions(torch.stack(list(models.values())).mean(0))
    shares = [float((predictions(x) != whole).double().mean()) for x in models.values()]
    assert row.disagreement == pytest.approx(sum(shares) / 4)
    assert row.disagreement > 0.1
    assert evaluated(ready, dict.fromkeys(range(4), models[0])).disagreement == 0


def test_spread_of_the_nodes_accuracies(tmp_path: Path) -> None:
    found = spread([0.2, 0.4, 0.9, 0.5])
    assert (found.min, found.median, found.max) == (0.2, pytest.approx(0.45), 0.9)
    assert found.std == pytest.approx(torch.tensor([0.2, 0.4, 0.9, 0.5]).std(correction=0).item())
    row = evaluated(prepared(tmp_path), dict.fromkeys(range(4), prepared(tmp_path).task.start()))
    assert row.accuracy_spread.min == row.accuracy_spread.max == min(row.node_accuracy)


def test_diversity_of_gradients_that_cancel_is_not_a_number() -> None:
    assert diversity(2.0, 0.0) is None
    assert diversity(2.0, 1.0) == 3


@pytest.mark.parametrize("topology", ["ring", "star", "complete", {"name": "ring", "schedule": "matchings"}])
def test_neighbors_differences_bound_the_consensus_distance(tmp_path: Path, topology: Any) -> None:
    ready = prepared(tmp_path, nodes=8, topology=topology, diagnostics=["edges"], model="linear", partition="iid")
    start = ready.task.start()
    for models in (scattered(ready, start, 1.0), dict(enumerate(start + torch.arange(8.0).unsqueeze(1)))):
        row = evaluated(ready, models)
        assert row.consensus_distance <= row.consensus_bound * (1 + 1e-6)
    assert (row.heterogeneity, row.disagreement) == (None, None)


def test_the_bound_is_met_by_the_slowest_direction(tmp_path: Path) -> None:
    ready = prepared(tmp_path, nodes=8, diagnostics=["edges"], model="linear", partition="iid", dtype="float64")
    wave = torch.cos(2 * torch.pi * torch.arange(8.0) / 8).double()  # the ring's second eigenvector
    row = evaluated(ready, dict(enumerate(ready.task.start() + wave.unsqueeze(1))))
    assert row.consensus_bound == pytest.approx(row.consensus_distance, rel=1e-9)


def test_without_a_graph_nothing_is_bounded(tmp_path: Path) -> None:
    assert edges_of(None) is None
    ready = prepared(tmp_path, algorithm="allreduce")
    seen: list[Evaluation] = []
    simulate(ready, seen.append)
    assert seen[-1].consensus_bound is None
    assert seen[-1].disagreement == 0


def test_diagnostics_can_be_left_out_and_change_no_model(tmp_path: Path) -> None:
    bare, full = prepared(tmp_path, diagnostics=[]), prepared(tmp_path)
    seen: list[Evaluation] = []
    with_them, without = simulate(full, lambda _: None), simulate(bare, seen.append)
    assert all(torch.equal(flat(with_them[node]), flat(without[node])) for node in range(4))
    absent = {"heterogeneity", "gradient_diversity", "disagreement", "consensus_bound"}
    assert {key for row in seen for key in absent if getattr(row, key) is not None} == set()
    assert all(row.accuracy_spread is not None for row in seen)


def test_real_ranks_measure_what_the_simulator_does(tmp_path: Path) -> None:
    ready = prepared(tmp_path)
    simulated: list[Evaluation] = []
    real: list[Evaluation] = []
    simulate(ready, simulated.append)
    on_ranks(4, lambda world: run_on(world, ready, epoch=1, run=7, observe=real.append))
    assert [row.round for row in real] == [0, 3, 6]
    for row, other in zip(simulated, real, strict=True):
        for key in ("heterogeneity", "gradient_diversity", "disagreement", "consensus_bound", "consensus_distance"):
            assert getattr(row, key) == pytest.approx(getattr(other, key), rel=1e-4, abs=1e-9), key
        assert row.accuracy_spread == other.accuracy_spread
    assert real[-1].consensus_bound >= real[-1].consensus_distance > 0


def test_nodes_are_tested_on_their_own_view_where_that_is_asked(tmp_path: Path) -> None:
    shift = {"name": "images", "rotation": 180}
    plain, asked = (prepared(tmp_path, shift=shift | {"test": test}) for test in (False, True))
    models = dict.fromkeys(range(4), plain.task.start())
    one, other = evaluated(plain, models), evaluated(asked, models)
    assert len(set(one.node_test_loss)) == 1
    assert len(set(other.node_test_loss)) == 4
    assert (one.test_loss, one.disagreement) == (other.test_loss, other.disagreement) == (other.test_loss, 0)
