"""A token method through a whole experiment: what is evaluated, foretold, labeled and refused, and virtual seconds."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml

from decentral.algorithms.token_round import TokenState
from decentral.errors import ConfigError
from decentral.loading import load
from decentral.measure.comparison import Evaluation
from decentral.measure.cost import Machine, Setting
from decentral.measure.export import exported, source
from decentral.measure.plan import bytes_per_round, memory_bytes, predicted
from decentral.measure.prepared import Prepared, own_method
from decentral.measure.run import simulate
from decentral.measure.speedup import simulate_alone
from decentral.training.objective import flat
from decentral.wrapping.settings import algorithm_named
from tests.contract.runs import sgd
from tests.contract.test_experiment import DIGITS, prepared

WALK: dict[str, Any] = {
    "algorithm": {"name": "mcgd", "visits": 10},
    "optimizer": {"lr": 0.1, "weight_decay": 1e-4},
    "rounds": 6,
    "evaluate_every": 3,
}


def ran(ready: Prepared) -> tuple[list[torch.Tensor], list[Evaluation]]:
    seen: list[Evaluation] = []
    modules = simulate(ready, seen.append)
    return [flat(modules[node]) for node in sorted(modules)], seen


def test_the_averaged_model_is_the_mean_of_the_tokens_not_of_what_nodes_saw_last(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, DIGITS, WALK)
    models, seen = ran(ready)
    last = seen[-1]
    assert last.node_accuracy is not None
    assert last.node_test_loss is not None
    chain = ready.algorithm.chain  # type: ignore[union-attr]
    holder = int(chain.path(ready.task.seed, 0, 61)[-1])
    assert last.accuracy == last.node_accuracy[holder]
    assert last.test_loss == pytest.approx(last.node_test_loss[holder], rel=1e-6)
    assert len({model.numpy().tobytes() for model in models}) > 1
    assert seen[0].accuracy == seen[0].node_accuracy[0]  # type: ignore[index]
    assert [row.loss is None for row in seen] == [True, False, False]


def test_several_tokens_are_averaged_for_evaluation(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, DIGITS, WALK, {"algorithm": {"name": "mcgd", "tokens": 3}})
    algorithm, d = cast(Any, ready.algorithm), ready.task.parameters
    peers = [ready.peer(node) for node in range(4)]
    states: list[TokenState] = [algorithm.init(torch.full((d,), float(node)), peers[node]) for node in range(4)]
    starts = [int(algorithm.chain.path(ready.task.seed, k, 1)[0]) for k in range(3)]
    vectors, weights = zip(*(algorithm.share(states[n], peers[n]) for n in range(4)), strict=True)
    torch.testing.assert_close(sum(vectors) / sum(weights), torch.full((d,), sum(starts) / 3))
    assert sum(weights) == 3


FORETOLD: list[dict[str, Any]] = [{"name": "mcgd", "visits": 10}, {"name": "sa-srrw"}, {"name": "token-gossip"}]
FORETOLD += [{"name": "sa-srrw", "counts_at": "nodes"}, {"name": "token-exchange"}]
FORETOLD += [{"name": "sa-srrw", "visits": 4, "tokens": 2, "route": "seeded"}]


@pytest.mark.parametrize("algorithm", FORETOLD)
def test_bytes_are_known_before_the_run(algorithm: dict[str, Any], tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, DIGITS, WALK, {"algorithm": algorithm})
    _, seen = ran(ready)
    foretold = [6 * bytes_per_round(ready, node) for node in range(4)]
    assert foretold == pytest.approx(seen[-1].bytes_sent)
    setting = Setting(4, 4 * ready.task.parameters, 0.01, Machine(1e10, 1e9))
    visits = algorithm.get("visits", 1)
    assert predicted(ready, setting).compute_s == pytest.approx(visits * 0.01)


@pytest.mark.parametrize("counts_at", ["token", "nodes"])
def test_the_memory_of_a_node_is_known_before_the_run(counts_at: str, tmp_path: Path) -> None:
    ready, _ = prepared(
        tmp_path, DIGITS, WALK, {"algorithm": {"name": "sa-srrw", "step_by": "adam", "counts_at": counts_at}}
    )
    memory, model = memory_bytes(ready, 0), 4 * ready.task.parameters
    counts = 8 * 4 if counts_at == "token" else 0
    assert memory["algorithm"] == 3 * model + counts + 5 * 8 + 8
    assert memory["messages"] >= 3 * model


def test_virtual_seconds_are_in_the_record(tmp_path: Path) -> None:
    clock = {"gradient_s": [1.0, 1.0, 1.0, 5.0], "latency_s": 0.5, "rate_bit_s": None}
    ready, _ = prepared(tmp_path, DIGITS, WALK, {"clock": clock})
    models, seen = ran(ready)
    path = ready.algorithm.chain.path(ready.task.seed, 0, 61)  # type: ignore[union-attr]
    walked = sum(5.0 if node == 3 else 1.0 for node in path[:-1]) + 0.5 * (path[1:] != path[:-1]).sum()
    notices = 6 * 3 * 0.5  # the news of each round's end goes two hops on a ring of four, and comes back over the last
    assert walked <= seen[-1].seconds <= walked + notices
    untimed, _ = prepared(tmp_path, DIGITS, WALK)
    assert all(torch.equal(one, other) for one, other in zip(models, ran(untimed)[0], strict=True))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a changing graph": (
        {"topology": {"name": "ring", "schedule": "matchings"}},
        "changes from turn to turn, and a walk needs the same in all",
    ),
    "no memory": (
        {"algorithm": {"name": "mcgd", "alpha": 2.0}},
        "kernel metropolis has no memory of visits, found alpha 2",
    ),
    "a target that it cannot have": (
        {"algorithm": {"name": "mcgd", "kernel": "simple", "target": "uniform"}, "topology": "star"},
        "kernel simple visits nodes in proportion to their degrees",
    ),
    "momentum of its own": (
        {"optimizer": {"lr": 0.1, "momentum": 0.9}},
        "mcgd takes the local step itself",
    ),
    "too few times": (
        {"clock": {"gradient_s": [1.0, 2.0]}},
        "found 2 times, the least 1 s; required: one for each of 4 nodes",
    ),
    "a link to nobody": (
        {"clock": {"links": [{"between": [0, 4]}]}},
        "found a link between 0 and 4; required: two of the nodes 0 to 3",
    ),
}


@pytest.mark.parametrize(("changed", "told"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        prepared(tmp_path, DIGITS, WALK, changed)


def test_walks_that_weigh_losses_by_degrees_are_told(tmp_path: Path) -> None:
    changed = {"algorithm": {"name": "mcgd", "kernel": "simple"}, "topology": "star"}
    with pytest.warns(UserWarning, match="in proportion to their degrees"):
        prepared(tmp_path, DIGITS, WALK, changed)


def test_labels_say_how_many_walk_and_how(tmp_path: Path) -> None:
    ready, _ = prepared(tmp_path, DIGITS, WALK, {"algorithm": {"name": "sa-srrw", "tokens": 3}})
    assert ready.label == "sa-srrw ring srrw alpha=5 tokens=3"


def test_a_training_loop_of_one_s_own_has_no_walking_model() -> None:
    with pytest.raises(ConfigError, match="algorithm 'walkman' moves the model from node to node"):
        algorithm_named("walkman", sgd(0.1))


@pytest.mark.parametrize(("name", "refused"), [("mcgd", True), ("token-gossip", False)])
def test_what_nodes_saw_last_is_not_averaged_for_export(name: str, refused: bool, tmp_path: Path) -> None:
    tree = {**DIGITS, **WALK, "rounds": 1, "algorithm": name}
    (tmp_path / "walk.yaml").write_text(yaml.safe_dump(tree))
    experiment, run = load(tmp_path / "walk.yaml").experiment, tmp_path / "run"
    simulate_alone(own_method(experiment), experiment, run, "", lambda *_: None)
    if refused:
        with pytest.raises(ConfigError, match="--model average: this run's model walks"):
            exported(source(run, None), "average")
    else:
        exported(source(run, None), "average")
    model, about = exported(source(run, None), "best")
    assert model
    assert about["model"] == "best"
