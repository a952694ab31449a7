"""Gossip over public copies: what it reduces to, that copies are equal at both ends, and that the mean stays."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decentral.algorithms.choco import Choco, ChocoState
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.public_copy import EdgeCopies, PublicCopy
from decentral.compression import Space, compressor_of
from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.peer import Peer
from decentral.topology import gallery
from decentral.topology.topology import Topology
from tests.compression.entries import ENTRIES
from tests.contract.oracle import Matrix
from tests.contract.oracle_compressed import largest
from tests.contract.problems import DIMENSION, LAYOUTS, Quadratics, alone, dense, graph
from tests.contract.ranks import WIRES, on_ranks
from tests.contract.runs import Run, play, same, sgd, simulate

pytestmark = pytest.mark.timeout(90)

TOP_3 = {"name": "top-k", "k": 3}
CONTRACTIVE = {
    name: section
    for name, section in ENTRIES.items()
    if compressor_of(section, Space(DIMENSION, torch.float64, LAYOUTS["many blocks"])).contraction is not None
}
CHANGING: dict[str, tuple[int, dict[str, Any]]] = {
    "matchings-6": (6, {"name": "ring", "schedule": "matchings"}),
    "random-matchings-5": (5, {"name": "ring", "schedule": "random-matchings"}),
    "matcha-8": (8, {"name": "ring", "schedule": {"name": "matcha", "budget": 0.5}}),
}


@cache
def changing(name: str) -> Topology:
    """One of CHANGING."""
    nodes, section = CHANGING[name]
    return gallery.load(example_with(topology=section).topology, nodes, Path())


def still(nodes: int) -> Quadratics:
    """No gradient anywhere: nothing but gossip."""
    drawn = Quadratics.draw(nodes)
    return Quadratics(0 * drawn.A, drawn.b, drawn.noise)


def gossip(topology: Topology, rounds: int, gamma: float, compression: Any) -> Run:
    """From a start of its own at each node, and copies that begin with zeros."""
    problem = still(topology.nodes)
    method = Choco(local=sgd(0.1), compression=compression, consensus_step=gamma, start="zero")
    return simulate(method, topology, problem.answers(), problem.starts(), rounds, layout=LAYOUTS["many blocks"])


@pytest.mark.parametrize("start", ["model", "zero"])
@pytest.mark.parametrize("order", ["adapt-then-combine", "adapt-while-communicate"])
@pytest.mark.parametrize("on", ["ring-9", "matchings-6"])
def test_without_compression_it_is_dsgd(on: str, order: Any, start: Any) -> None:
    topology = changing(on) if on in CHANGING else graph(on)
    problem = Quadratics.draw(topology.nodes, noisy_rounds=40)
    choco = Choco(local=sgd(0.05), compression="none", consensus_step=1.0, order=order, start=start)
    begin = np.repeat(problem.starts()[:1], topology.nodes, axis=0)
    found, expected = (
        simulate(method, topology, problem.answers(), begin, 40)
        for method in (choco, DSGD(local=sgd(0.05), order=order))
    )
    np.testing.assert_allclose(found.models, expected.models, rtol=0, atol=2e-14)


@pytest.mark.parametrize("gamma", [0.1, 1.0], ids=["small gamma", "large gamma"])
@pytest.mark.parametrize("on", ["ring-8", "matcha-8"])
@pytest.mark.parametrize("compression", CONTRACTIVE.values(), ids=CONTRACTIVE)
def test_the_mean_stays_whatever_is_compressed_and_however_it_diverges(
    on: str, compression: dict[str, Any], gamma: float
) -> None:
    topology = changing(on) if on in CHANGING else graph(on)
    run = gossip(topology, 25, gamma, compression)
    error = np.abs(run.models.mean(axis=1) - run.models[0].mean(axis=0)).max()
    assert error <= 1e-12 * max(1.0, np.abs(run.models).max())


def test_what_diverges_in_that_test_diverges() -> None:
    """top-1 of 13 with gamma = 1: else the test above would say nothing of such runs."""
    assert np.abs(gossip(graph("ring-8"), 100, 1.0, {"name": "top-k", "k": 1}).final).max() > 1e3


@pytest.mark.parametrize("on", CHANGING)
def test_gossip_on_a_changing_graph_reaches_the_mean(on: str) -> None:
    run = gossip(changing(on), 600, 0.3, TOP_3)
    np.testing.assert_allclose(run.final, np.tile(run.models[0].mean(axis=0), (changing(on).nodes, 1)), atol=1e-6)


@pytest.mark.parametrize("on", CHANGING)
def test_on_a_changing_graph_it_computes_its_equations(on: str) -> None:
    """With a copy for each end of each edge, H[j, i] of what i knows of j."""
    topology, lr, gamma, C = changing(on), 0.02, 0.2, largest(3)
    problem = Quadratics.draw(topology.nodes, noisy_rounds=30)
    X: Matrix = np.repeat(problem.starts()[:1], topology.nodes, axis=0)
    H = np.repeat(X[:, None], topology.nodes, axis=1)
    method = Choco(local=sgd(lr), compression=TOP_3, consensus_step=gamma)
    run, grad = simulate(method, topology, problem.answers(), X, 30), problem.gradients()
    for turn in range(30):
        W = topology.schedule.matrix(turn).dense()
        X = X - lr * grad(X)
        for i, j in np.argwhere(W * (1 - np.eye(topology.nodes))):
            H[i, j] += C((X[i] - H[i, j])[None])[0]
        X = X + gamma * (np.einsum("ij,jid->id", W, H) - np.einsum("ij,ijd->id", W, H))
    np.testing.assert_allclose(run.final, X, rtol=0, atol=1e-12)


def copies(run: Run, node: int) -> Any:
    state = run.states[node]
    assert isinstance(state, ChocoState)
    return state.copies


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("order", ["adapt-then-combine", "adapt-while-communicate"])
@pytest.mark.parametrize("on", CHANGING)
def test_both_ends_of_an_edge_have_the_same_copies(on: str, order: Any, wire: str) -> None:
    topology = changing(on)
    problem = Quadratics.draw(topology.nodes, noisy_rounds=20)
    starts = torch.from_numpy(np.repeat(problem.starts()[:1], topology.nodes, axis=0)).to(torch.float32)
    method = Choco(local=sgd(0.02), compression=TOP_3 | {"values": "int8"}, consensus_step=0.2, order=order)

    def work(world: Any) -> Run:
        driver = world.driver(topology, problem.gradient(world.rank, torch.float32), run=7, epoch=1)
        try:
            return play(method, driver, topology, starts, 20)
        finally:
            driver.close()

    runs = on_ranks(topology.nodes, work, wire=wire)
    simulated = simulate(method, topology, problem.answers(torch.float32), starts, 20)
    for rank, run in enumerate(runs):
        assert same(run.states[rank], simulated.states[rank])
        assert run.bytes_sent == {rank: simulated.bytes_sent[rank]}
        assert isinstance(copies(run, rank), EdgeCopies)
        for j, theirs in copies(run, rank).theirs.items():
            assert torch.equal(theirs, copies(runs[j], j).own[rank])
            assert theirs.any()


def test_the_sum_is_that_of_the_copies() -> None:
    """s_i = sum_j w_ij h_j, though no node has any h_j but its own."""
    topology = graph("social-32")
    problem = Quadratics.draw(32)
    method = Choco(local=sgd(0.05), compression=TOP_3, consensus_step=0.2)
    run = simulate(method, topology, problem.answers(), np.repeat(problem.starts()[:1], 32, axis=0), 50)
    assert all(isinstance(copies(run, node), PublicCopy) for node in range(32))
    own, mixed = (
        torch.stack([getattr(copies(run, node), which) for node in range(32)]).numpy() for which in ("own", "mixed")
    )
    np.testing.assert_allclose(mixed, dense(topology) @ own, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("compression", "found"),
    [
        ({"name": "qsgd", "bits": 2}, "found qsgd, whose error may be larger than the vector itself"),
        ({"name": "random-k", "k": 2, "unbiased": True}, "found random-k"),
    ],
)
def test_a_compressor_that_does_not_contract_is_refused(compression: Any, found: str) -> None:
    method = Choco(local=sgd(0.1), compression=compression, consensus_step=0.1)
    with pytest.raises(ConfigError, match=found):
        method.init(torch.zeros(DIMENSION), Peer(0, 1, lambda turn: alone(1).row(0), LAYOUTS["one block"]))
