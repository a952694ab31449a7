"""Which graphs and optimizers an algorithm takes: what the theory forbids is refused, and what is changed is told."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
import yaml

from decentral.algorithms.d2 import D2
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.relay_sgd import RelaySGD
from decentral.algorithms.stochastic_gradient_push import StochasticGradientPush
from decentral.config import Transport
from decentral.errors import ConfigError
from decentral.loading import load
from decentral.measure.comparison import Evaluation
from decentral.measure.prepared import Prepared, own_method
from decentral.measure.run import run_on, simulate
from decentral.topology.admission import admissions
from decentral.topology.analysis import analyze, spectrum
from decentral.topology.topology import Topology
from decentral.training.algorithm import between_nodes
from decentral.training.objective import flat
from decentral.transport.world import World
from tests.contract.directed import directed
from tests.contract.problems import graph, shipped
from tests.contract.runs import sgd

TREE: dict[str, Any] = {
    "nodes": 4,
    "rounds": 6,
    "batch_size": 16,
    "evaluate_every": 6,
    "data": "digits",
    "model": "linear",
    "optimizer": {"lr": 0.1},
    "topology": "ring",
}

WALK = {"algorithm": "sa-srrw"}
TWICE = [{"start": 5, "target": 1}, {"start": 5, "target": 2}]


def ready(folder: Path, **more: Any) -> Prepared:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(TREE | more))
    return own_method(load(path).experiment)


@pytest.mark.parametrize(
    ("more", "told", "at"),
    [
        (
            {"algorithm": "qg-dsgdm", "optimizer": {"momentum": 0.9}},
            "found momentum=0.9; qg-dsgdm takes the local step itself",
            ("optimizer",),
        ),
        ({"algorithm": "decentlam", "optimizer": {"name": "torch.optim.AdamW"}}, "found AdamW;", ("optimizer",)),
        ({"algorithm": "gut", "optimizer": {"maximize": True}}, "found maximize=True", ("optimizer",)),
        (
            {"algorithm": "d2", "topology": {"name": "ring", "schedule": "matchings"}},
            "changes from turn to turn, and D2 needs the same in all",
            ("topology",),
        ),
        (
            {"algorithm": "exact-diffusion", "topology": {"name": "ring", "schedule": "matchings"}},
            "Exact Diffusion needs the same in all",
            ("topology",),
        ),
        (
            {"algorithm": "gut", "topology": {"name": "ring", "schedule": "matchings"}},
            "GUT needs the same in all",
            ("topology",),
        ),
        (
            {"algorithm": "relay-sgd"},
            "RelaySum needs a tree, found 1 edge(s) more than one has in ring",
            ("topology",),
        ),
        (
            {"algorithm": "relay-sgd", "topology": {"name": "tree", "scaling": "lazy"}},
            "found lazy; relay-sgd uses no mixing weights: leave scaling out",
            ("topology", "scaling"),
        ),
        (
            {"algorithm": "relay-sgd", "topology": {"name": "tree", "weights": "metropolis"}},
            "found metropolis; relay-sgd uses no mixing weights: leave weights out",
            ("topology", "weights"),
        ),
        (
            {"algorithm": {"name": "d2", "lazy": "never"}},
            "ring has the eigenvalue -0.3333, and D2 needs all above -1/3",
            ("topology",),
        ),
        (
            {"algorithm": {"name": "consensus-control", "of": "d2", "target": 1}},
            "consensus-control cannot control d2: its correction sums what its own mixing changes",
            ("algorithm", "of"),
        ),
        (
            {"algorithm": {"name": "consensus-control", "of": "ddp", "target": 1}},
            "consensus-control cannot control ddp: it is centralized",
            ("algorithm", "of"),
        ),
        (
            {"algorithm": {"name": "consensus-control", "of": "qg-dsgdm", "target": 1}, "optimizer": {"momentum": 0.9}},
            "found momentum=0.9; QuasiGlobalMomentum takes the local step itself",
            ("optimizer",),
        ),
        (
            {"algorithm": {"name": "consensus-control", "of": "dsgd", "target": None, "phases": TWICE}},
            "found phases that start at [5, 5]; required: ascending rounds",
            ("algorithm", "phases"),
        ),
        (
            {"algorithm": "dsgd", "transport": {"survive": True}},
            "survive, but nodes of dsgd wait for every neighbor, a dead one too; use a token method",
            ("transport", "survive"),
        ),
        (
            {**WALK, "transport": {"name": "mpi", "survive": True}},
            "survive over mpi, which ends with the first death; use gloo or shared-memory",
            ("transport", "survive"),
        ),
        (
            {
                **WALK,
                "transport": {"survive": True},
                "checkpoint": {"every": 5},
            },
            "survive with checkpoint.every: 5; a checkpoint needs every node",
            ("transport", "survive"),
        ),
    ],
)
def test_what_is_refused(more: dict[str, Any], told: str, at: Sequence[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        ready(tmp_path, **more)
    assert told in str(refused.value)
    assert refused.value.at == at


@pytest.mark.parametrize("algorithm", ["d2", "exact-diffusion", "decentlam"])
def test_directed_graphs_are_refused(algorithm: str, tmp_path: Path) -> None:
    (tmp_path / "one_way.py").write_text(
        "import networkx as nx\ndef build(nodes):\n    return nx.cycle_graph(nodes, create_using=nx.DiGraph)\n"
    )
    with pytest.raises(ConfigError, match="needs one that is symmetric"):
        ready(tmp_path, algorithm=algorithm, topology={"name": "./one_way.py", "weights": "uniform"})


@pytest.mark.parametrize("on", ["ring-8", "torus-4x8", "hypercube-32", "social-32"])
def test_d2_takes_half_steps_where_the_spectrum_asks_for_them(on: str) -> None:
    with pytest.warns(UserWarning, match=r"D2 needs all above -1/3: it runs with \(I\+W\)/2"):
        halved = between_nodes(D2(local=sgd(0.1)), graph(on), ())
    before, after = (spectrum(one.schedule.matrix(0)).last for one in (graph(on), halved))
    assert before < -1 / 3 + 1e-4
    assert after == pytest.approx((1 + before) / 2)
    assert halved.edges == graph(on).edges


@pytest.mark.filterwarnings("error")
def test_d2_takes_other_graphs_as_they_are() -> None:
    for topology in (graph("ring-9"), graph("complete-8"), Topology.static("alone", nx.empty_graph(1), "metropolis")):
        assert between_nodes(D2(local=sgd(0.1), lazy="never"), topology, ()) is topology


JUDGED = {
    "ring-8": graph("ring-8"),
    "ring-9": graph("ring-9"),
    "star-32": graph("star-32"),
    "social-32": graph("social-32"),
    "alone": Topology.static("alone", nx.empty_graph(1), "metropolis"),
    "double trees": shipped("double_binary_trees", 7),
    "double trees apart": shipped("double_binary_trees", 7, apart=True),
    "tree, shared out": shipped("tree", 7, weights="column-stochastic"),
    "star, matchings": shipped("star", 6, schedule="matchings"),
    "tree, matcha": shipped("tree", 6, schedule="matcha"),
    "one-peer exponential": shipped("one_peer_exponential", 8),
    "base_k": shipped("base_k", 5),
    "cycle": directed("cycle-4"),
    "lopsided": directed("lopsided-5"),
    "one way": directed("one-way-4"),
}


@pytest.mark.parametrize("on", JUDGED)
def test_methods_refuse_what_topology_explain_says_they_do(on: str) -> None:
    topology = JUDGED[on]
    methods = {
        "D-SGD": DSGD(local=sgd(0.1)),
        "D2": D2(local=sgd(0.1), lazy="never"),
        "push-sum": StochasticGradientPush(local=sgd(0.1)),
        "RelaySum": RelaySGD(local=sgd(0.1), trees=topology.schedule.period or 1),
    }
    for verdict in admissions(topology, analyze(topology)):
        if verdict.method not in methods:
            continue
        with nullcontext() if verdict.admitted else pytest.raises(ConfigError):
            between_nodes(methods[verdict.method], topology, ())


def silent(row: Evaluation) -> None:
    pass


def test_ddp_and_all_reduce_follow_the_same_learning_rates(tmp_path: Path) -> None:
    """One node: both are a plain loop, so that equal models mean equal rates in all rounds."""
    schedule = {"name": "step", "at": [2, 4], "warmup": 2}
    models = []
    for rate in (schedule, "constant"):
        alone = {"nodes": 1, "optimizer": {"lr": 0.1, "momentum": 0.9, "schedule": rate}}
        modules = simulate(ready(tmp_path, algorithm="allreduce", **alone), silent)
        ddp = ready(tmp_path, algorithm="ddp", **alone)
        by_ddp = run_on(World.alone(Transport()), ddp, 1, 7, silent)
        torch.testing.assert_close(flat(modules[0]), flat(by_ddp[0]), rtol=1e-5, atol=1e-7)
        models.append(flat(modules[0]))
    assert not torch.allclose(*models, rtol=1e-2, atol=1e-2)
