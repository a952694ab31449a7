"""Identities of the methods that communicate seldom or little, and what their messages cost."""

from typing import Any

import networkx as nx
import numpy as np
import pytest

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.diloco import DiLoCo
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.epidemic import EpidemicLearning
from decentral.algorithms.fedavg import FedAvg
from decentral.algorithms.gasloc import GASLoC
from decentral.algorithms.noloco import NoLoCo
from decentral.algorithms.sparseloco import SparseLoCo
from decentral.algorithms.sparta import Sparta
from decentral.errors import ConfigError
from decentral.topology.topology import Topology
from tests.contract.oracle import Matrix
from tests.contract.oracle_compressed import largest
from tests.contract.problems import DIMENSION, Quadratics, alone, graph
from tests.contract.runs import Run, sgd, simulate
from tests.contract.test_algorithms import common_start
from tests.topology.topologies import named, random_matchings

WHOLE = Topology.static("complete", nx.complete_graph(8), "uniform")
LOCAL = sgd(0.05, momentum=0.9)


def run(algorithm: Algorithm, topology: Topology, problem: Quadratics, rounds: int = 30) -> Run:
    return simulate(algorithm, topology, problem.answers(), common_start(problem), rounds)


EQUAL: dict[str, tuple[Algorithm, Algorithm, Topology]] = {
    "DiLoCo with a whole step and no momentum is FedAvg": (
        DiLoCo(local=LOCAL, every=3, outer_lr=1, outer_momentum=0),
        FedAvg(local=LOCAL, every=3),
        WHOLE,
    ),
    "D-SGD with local steps on the complete graph is FedAvg": (
        DSGD(local=LOCAL, every=3),
        FedAvg(local=LOCAL, every=3),
        WHOLE,
    ),
    "GASLoC on the complete graph with the momentum of what is mixed is DiLoCo": (
        GASLoC(local=LOCAL, every=3, outer_lr=0.7, outer_momentum=0.8, momentum_of="mixed"),
        DiLoCo(local=LOCAL, every=3, outer_lr=0.7, outer_momentum=0.8),
        WHOLE,
    ),
    "GASLoC on the complete graph without momentum is DiLoCo without": (
        GASLoC(local=LOCAL, every=3, outer_lr=0.7, outer_momentum=0),
        DiLoCo(local=LOCAL, every=3, outer_lr=0.7, outer_momentum=0),
        WHOLE,
    ),
    "GASLoC with a whole step and no momentum is D-SGD with local steps": (
        GASLoC(local=LOCAL, every=3, outer_lr=1, outer_momentum=0),
        DSGD(local=LOCAL, every=3),
        graph("ring-8"),
    ),
    "NoLoCo with a whole step and no momentum is D-SGD with local steps": (
        NoLoCo(local=LOCAL, every=3, outer_lr=1, outer_momentum=0),
        DSGD(local=LOCAL, every=3),
        random_matchings(8),
    ),
    "SparseLoCo without compression is its dense rule, GASLoC without momentum": (
        SparseLoCo(local=LOCAL, every=3, outer_lr=0.7, compression="none", consensus_step=1.0),
        GASLoC(local=LOCAL, every=3, outer_lr=0.7, outer_momentum=0),
        graph("ring-8"),
    ),
    "SparseLoCo without compression on the complete graph is DiLoCo without momentum": (
        SparseLoCo(local=LOCAL, every=3, outer_lr=0.7, compression="none", consensus_step=1.0),
        DiLoCo(local=LOCAL, every=3, outer_lr=0.7, outer_momentum=0),
        WHOLE,
    ),
    "SPARTA of everything is D-SGD": (Sparta(local=LOCAL, fraction=1), DSGD(local=LOCAL), graph("ring-8")),
    "overlapped SPARTA of everything is overlapped D-SGD": (
        Sparta(local=LOCAL, fraction=1, order="adapt-while-communicate"),
        DSGD(local=LOCAL, order="adapt-while-communicate"),
        random_matchings(8),
    ),
}


@pytest.mark.parametrize(("one", "other", "topology"), EQUAL.values(), ids=EQUAL)
def test_reductions(one: Algorithm, other: Algorithm, topology: Topology) -> None:
    problem = Quadratics.draw(8, noisy_rounds=30)
    found, expected = (run(algorithm, topology, problem).models for algorithm in (one, other))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_mean_of_gasloc_on_the_complete_graph_is_diloco() -> None:
    """With its own momentum, of the paper, where one curvature makes the mean gradient that at the mean model; though
    no node is there: they differ by gamma (y_i+ - y_i)."""
    problem = Quadratics.isotropic(8, 1.5)
    outer: dict[str, Any] = {"local": LOCAL, "every": 3, "outer_lr": 0.7, "outer_momentum": 0.8}
    gossip, central = (run(algorithm, WHOLE, problem) for algorithm in (GASLoC(**outer), DiLoCo(**outer)))
    np.testing.assert_allclose(gossip.models.mean(axis=1), central.models.mean(axis=1), rtol=0, atol=1e-12)
    assert np.abs(gossip.final - central.final).max() > 0.1


def test_one_node_alone_is_nesterov_on_its_own_drift() -> None:
    """GASLoC and DiLoCo are then the same, and every node's lookahead is torch's own optimizer."""
    problem = Quadratics.draw(1, noisy_rounds=30)
    outer: dict[str, Any] = {"local": LOCAL, "every": 3, "outer_lr": 0.7, "outer_momentum": 0.8}
    found = [run(algorithm, alone(1), problem).models for algorithm in (GASLoC(**outer), DiLoCo(**outer))]
    np.testing.assert_allclose(*found, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("momentum", "refused"), [(0.9, False), (0.99999, True)])
def test_gasloc_refuses_the_momentum_of_what_is_mixed_where_it_diverges(momentum: float, refused: bool) -> None:
    """The ring of 8 has l_n = -1/3; with gamma = 0.9 all must be above -0.3571, with gamma = 1 above -1/3."""
    method = GASLoC(local=LOCAL, outer_momentum=momentum, momentum_of="mixed")
    if not refused:
        assert method.suited(graph("ring-8")) == (graph("ring-8"), "")
        return
    with pytest.raises(ConfigError, match=r"eigenvalue -0\.3333, and GASLoC with momentum_of: mixed"):
        method.suited(graph("ring-8"))
    assert GASLoC(local=LOCAL, outer_momentum=momentum).suited(graph("ring-8"))[1] == ""


def test_gasloc_warns_of_much_momentum_where_links_change() -> None:
    """And with reason: with 0.9 random pairs drift apart, by nothing but gossip."""
    drawn = Quadratics.draw(8)
    still = Quadratics(0 * drawn.A, drawn.b, drawn.noise)
    told = "changes from turn to turn, where outer_momentum 0.9 may drive nodes apart"
    for momentum, warns in ((0.6, False), (0.9, True)):
        method = GASLoC(local=sgd(0.1), every=1, outer_momentum=momentum)
        assert (told in method.suited(random_matchings(8))[1]) == warns
        models = simulate(method, random_matchings(8), still.answers(), drawn.starts(), 100).models
        assert (np.ptp(models[-1], axis=0).max() > np.ptp(models[0], axis=0).max()) == warns


@pytest.mark.parametrize(("own_weight", "diverges"), [(0.3, True), (0.36, False)])
def test_that_bound_is_where_it_is(own_weight: float, diverges: bool) -> None:
    """A ring of 8 with l_n = 2 own_weight - 1, gamma = 0.9: gossip alone, from where nodes differ."""
    ring = nx.cycle_graph(8)
    nx.set_edge_attributes(ring, (1 - own_weight) / 2, "weight")
    topology = Topology.static("ring", ring, "given")
    drawn = Quadratics.draw(8)
    still = Quadratics(0 * drawn.A, drawn.b, drawn.noise)
    method = GASLoC(local=sgd(0.1), every=1, outer_momentum=0.9, momentum_of="mixed")
    models: Matrix = simulate(method, topology, still.answers(), drawn.starts(), 300).models
    apart = np.abs(models - models.mean(axis=1, keepdims=True)).max(axis=(1, 2))
    assert (apart[-1] > 100 * apart[0]) == diverges
    assert (apart[-1] < apart[0]) != diverges


@pytest.mark.parametrize("method", ["gasloc", "noloco", "sparta"])
def test_gossip_brings_the_nodes_together_and_keeps_their_mean(method: str) -> None:
    drawn = Quadratics.draw(8)
    still = Quadratics(0 * drawn.A, drawn.b, drawn.noise)
    made: dict[str, Algorithm] = {
        "gasloc": GASLoC(local=sgd(0.1), every=2, outer_momentum=0.6),
        "noloco": NoLoCo(local=sgd(0.1), every=2),
        "sparta": Sparta(local=sgd(0.1), fraction=0.2),
    }
    models = simulate(made[method], random_matchings(8), still.answers(), drawn.starts(), 400).models
    np.testing.assert_allclose(models.mean(axis=1), np.tile(models[0].mean(axis=0), (401, 1)), rtol=0, atol=1e-12)
    assert np.ptp(models[-1], axis=0).max() < 1e-3 * np.ptp(models[0], axis=0).max()


def test_epidemic_learning_of_a_balanced_draw_is_dsgd_and_repeating_links_are_refused() -> None:
    problem, topology = Quadratics.draw(8, noisy_rounds=30), named("epidemic", 8, recipients=3)
    found, expected = (run(kind(local=LOCAL), topology, problem).models for kind in (EpidemicLearning, DSGD))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    with pytest.raises(ConfigError, match="ring repeats its links, and epidemic takes plain means"):
        EpidemicLearning(local=LOCAL).suited(graph("ring-8"))


def test_epidemic_learning_moves_the_mean_in_no_direction_of_its_own() -> None:
    """EL-Local: in one round the mean moves while nodes differ; over 300 draws it stays, to its standard error."""
    schedule = named("epidemic", 8, recipients=2, balanced=False).schedule
    starts = np.random.default_rng(3).standard_normal((8, DIMENSION))
    moved = []
    for turn in range(300):
        heard = schedule.matrix(turn).dense() > 0
        moved.append((heard / heard.sum(axis=1, keepdims=True) @ starts - starts).mean(axis=0))
    error = np.std(moved, axis=0) / np.sqrt(len(moved))
    assert np.abs(moved).max() > 0.1
    assert (np.abs(np.mean(moved, axis=0)) < 4 * error).all()


def test_sparseloco_on_the_complete_graph_is_the_papers_own_with_one_model_for_all() -> None:
    """Whatever gamma is: the public copies are equal, and their differences 0."""
    problem, z, rest = Quadratics.draw(8, noisy_rounds=30), Quadratics.draw(8).starts()[0], np.zeros((8, DIMENSION))
    method = SparseLoCo(
        local=sgd(0.05), every=3, outer_lr=0.7, compression={"name": "top-k", "k": 3}, consensus_step=0.3
    )
    gradient, keep = problem.gradients(), largest(3)
    for _ in range(10):
        X = np.tile(z, (8, 1))
        for _ in range(3):
            X = X - 0.05 * gradient(X)
        rest = 0.95 * rest + z - X
        sent = keep(rest)
        rest, z = rest - sent, z - 0.7 * sent.mean(axis=0)
    np.testing.assert_allclose(run(method, WHOLE, problem).final, np.tile(z, (8, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("on", ["ring-8", "random pairs"])
def test_sparseloco_keeps_nodes_together_over_a_graph(on: str) -> None:
    """Each wants to go elsewhere; without the copies of models, gamma = 0, nothing would hold them."""
    problem, topology = Quadratics.draw(8), graph("ring-8") if on == "ring-8" else random_matchings(8)
    compression = {"name": "top-k", "k": 3}
    apart = {}
    for gamma in (0.3, 1e-9):
        method = SparseLoCo(local=sgd(0.05), every=3, compression=compression, consensus_step=gamma, outer_lr=0.5)
        apart[gamma] = float(np.ptp(run(method, topology, problem, 300).final, axis=0).max())
    assert apart[0.3] < apart[1e-9] / 3, apart


def test_sparta_changes_no_more_than_its_part() -> None:
    """And in time all numbers: 3 of 13 in each round."""
    drawn = Quadratics.draw(8)
    still = Quadratics(0 * drawn.A, drawn.b, drawn.noise)
    models = simulate(Sparta(local=sgd(0.1), fraction=0.25), WHOLE, still.answers(), drawn.starts(), 40).models
    changed = (np.diff(models, axis=0) != 0).any(axis=1)
    assert changed.sum(axis=1).max() == 3
    assert changed[0].sum() == 3
    assert changed.any(axis=0).sum() == DIMENSION
