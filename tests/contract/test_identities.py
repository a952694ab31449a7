"""Exact identities: methods that must agree, what must be kept, and thresholds that must lie where theory says."""

from collections.abc import Mapping
from functools import partial
from typing import get_args

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decentral.algorithms.allreduce import AllReduceSGD
from decentral.algorithms.dsgd import DSGD, Order
from decentral.fused import CHUNK
from decentral.peer import Peer, weighted_sum
from decentral.topology.analysis import spectrum
from decentral.topology.graph import checked_graph
from decentral.topology.topology import Topology
from decentral.transport.lockstep import LockstepDriver
from tests.contract.problems import DIMENSION, GRAPHS, Quadratics, alone, dense, flat, graph
from tests.contract.runs import Recorder, Run, same, sgd, simulate

ATC: Order = "adapt-then-combine"
CTA: Order = "combine-then-adapt"
AWC: Order = "adapt-while-communicate"

every_order = pytest.mark.parametrize("order", get_args(Order))
every_graph = pytest.mark.parametrize("on", GRAPHS)


# Reductions.


@pytest.mark.parametrize("weights", ["uniform", "metropolis"])
def test_on_the_complete_graph_adapt_then_combine_is_all_reduce_sgd(weights: str) -> None:
    """W = J averages the steps of all nodes, which is a step with the averaged gradient; without momentum or with."""
    topology = Topology.static("complete", nx.complete_graph(8), weights)
    problem, rounds = Quadratics.draw(8, noisy_rounds=40), 40
    start = np.repeat(problem.starts()[:1], 8, axis=0)
    local = sgd(0.05, momentum=0.5, weight_decay=0.1)
    gossip = simulate(DSGD(local=local), topology, problem.answers(), start, rounds)
    central = simulate(AllReduceSGD(local=local), topology, problem.answers(), start, rounds)
    np.testing.assert_allclose(gossip.models, central.models, rtol=0, atol=1e-12)


@every_order
@pytest.mark.parametrize("every", [1, 3])
def test_without_edges_every_node_runs_alone(order: Order, every: int) -> None:
    problem, rounds = Quadratics.draw(5, noisy_rounds=20), 20
    algorithm = DSGD(local=sgd(0.05, momentum=0.9, weight_decay=0.1), order=order, every=every)
    together = simulate(algorithm, alone(5), problem.answers(), problem.starts(), rounds)
    for node in range(5):
        solo = simulate(algorithm, alone(1), [problem.gradient(node)], problem.starts()[node : node + 1], rounds)
        assert same(together.states[node], solo.states[0])
    assert not any(together.bytes_sent.values())


@every_order
def test_one_local_step_per_mixing_is_the_default_and_four_send_a_quarter(order: Order) -> None:
    problem = Quadratics.draw(8)
    run = partial(simulate, topology=graph("ring-8"), gradients=problem.answers(), starts=problem.starts(), rounds=16)
    default, one, four = (
        run(DSGD(local=sgd(0.05), order=order, **taken)) for taken in ({}, {"every": 1}, {"every": 4})
    )
    assert default.models.tobytes() == one.models.tobytes()
    assert {node: 4 * sent for node, sent in four.bytes_sent.items()} == one.bytes_sent
    mixing = [round for round, posted in enumerate(four.posted) if any(posted.values())]
    assert mixing == [3, 7, 11, 15]


@every_graph
def test_adapt_then_combine_is_combine_then_adapt_half_a_step_apart(on: str) -> None:
    """Combine-then-adapt from Y asks for its gradients at Z_k = W Y_k. Those obey Z+ = W (Z - lr g(Z)), which is
    adapt-then-combine from W Y: its model after k rounds is the point where the other takes its k-th gradient."""
    topology, rounds = graph(on), 10
    problem = Quadratics.draw(topology.nodes, noisy_rounds=rounds)
    recorders = [Recorder.of(gradient) for gradient in problem.answers()]
    simulate(DSGD(local=sgd(0.05), order=CTA), topology, recorders, problem.starts(), rounds)
    points = np.stack([torch.stack(recorder.points).numpy() for recorder in recorders], axis=1)
    first = simulate(DSGD(local=sgd(0.05)), topology, flat(topology.nodes), problem.starts(), 1).final
    atc = simulate(DSGD(local=sgd(0.05), order=ATC), topology, problem.answers(), first, rounds)
    np.testing.assert_array_equal(points, atc.models[:-1])


# Pure gossip.


def disagreement(models: np.ndarray) -> np.ndarray:
    """Distance of all nodes to their mean, for each round of (rounds, n, d)."""
    return np.linalg.norm(models - models.mean(axis=1, keepdims=True), axis=(1, 2))


@every_order
@every_graph
def test_a_gossip_step_contracts_disagreement_by_rho_at_least(on: str, order: Order) -> None:
    topology = graph(on)
    rho = 1 - spectrum(topology.schedule.matrix(0)).gap
    X = np.random.default_rng(0).standard_normal((topology.nodes, DIMENSION))
    run = simulate(DSGD(local=sgd(0.1), order=order), topology, flat(topology.nodes), X, 12)
    apart = disagreement(run.models)
    assert (apart[1:] <= rho * apart[:-1] + 1e-13).all()


@every_graph
@pytest.mark.parametrize("which", [-2, 0], ids=["l_2", "l_n"])
def test_an_eigenvector_shrinks_by_its_eigenvalue(on: str, which: int) -> None:
    """The slowest directions: V -> l^k V, with the sign of l_n."""
    topology, rounds = graph(on), 12
    values, vectors = np.linalg.eigh(dense(topology))
    X = np.outer(vectors[:, which], np.arange(1, DIMENSION + 1))
    run = simulate(DSGD(local=sgd(0.1)), topology, flat(topology.nodes), X, rounds)
    expected = values[which] ** np.arange(rounds + 1)[:, None, None] * X
    np.testing.assert_allclose(run.models, expected, rtol=0, atol=1e-12)


@st.composite
def connected(draw: st.DrawFn) -> Topology:
    """A random tree with some more edges, as a topology with Metropolis weights."""
    nodes = draw(st.integers(1, 12))
    tree = nx.empty_graph(nodes)
    tree.add_edges_from((draw(st.integers(0, node - 1)), node) for node in range(1, nodes))
    more = draw(st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)), max_size=15))
    tree.add_edges_from((i, j) for i, j in more if i != j)
    return Topology.static("drawn", checked_graph(tree, nodes, "drawn"), "metropolis")


@settings(max_examples=60, deadline=None)
@given(topology=connected(), d=st.integers(1, 20), magnitude=st.integers(-20, 20), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("in_place", [True, False], ids=["mix_", "mix"])
def test_one_gossip_step_is_w_times_x(in_place: bool, topology: Topology, d: int, magnitude: int, seed: int) -> None:
    X = 10.0**magnitude * np.random.default_rng(seed).standard_normal((topology.nodes, d))
    own = [torch.from_numpy(row.copy()) for row in X]

    async def step(peer: Peer) -> Tensor:
        x = own[peer.node]
        return await (peer.mix_(x) if in_place else peer.mix(x))

    peers = [Peer(node, topology.nodes, partial(topology.row, node)) for node in range(topology.nodes)]
    mixed = LockstepDriver(flat(topology.nodes)).advance({peer.node: step(peer) for peer in peers}, 0)
    result, scale = torch.stack(list(mixed.values())).numpy(), np.abs(X).max()
    np.testing.assert_allclose(result, dense(topology) @ X, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(result.mean(axis=0), X.mean(axis=0), rtol=0, atol=1e-12 * scale)
    assert all((mixed[node] is own[node]) == in_place for node in mixed)
    np.testing.assert_array_equal(torch.stack(own).numpy(), result if in_place else X)


SIZES = [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("into", [None, 0, 4, 9], ids=["new", "first", "middle", "last"])
@pytest.mark.parametrize("size", SIZES)
def test_weighted_sum_is_the_plain_ascending_sum(size: int, into: int | None, dtype: torch.dtype) -> None:
    """In chunks or in one go, into one of the vectors or elsewhere, whatever order the mappings have: the same bits."""
    generator = torch.Generator().manual_seed(0)
    weights = {9: 0.1, 0: 0.3, 7: 0.35, 4: 0.25}
    vectors = {node: torch.randn(size, generator=generator, dtype=dtype) for node in (4, 9, 0, 7)}
    before = {node: vector.clone() for node, vector in vectors.items()}
    expected = plain_sum(weights, before)
    out = torch.empty(size, dtype=dtype) if into is None else vectors[into]
    assert weighted_sum(weights, vectors, out) is out
    assert torch.equal(out, expected)
    assert all(torch.equal(vectors[node], before[node]) for node in vectors if node != into)


def plain_sum(weights: Mapping[int, float], vectors: Mapping[int, Tensor]) -> Tensor:
    first, *others = sorted(weights)
    total = vectors[first] * weights[first]
    for node in others:
        total = total + vectors[node] * weights[node]
    return total


# Bias and stability.


def errors(problem: Quadratics, run: Run) -> np.ndarray:
    """Sum over the nodes of ||x_i - x*||^2, for each round."""
    return np.square(run.models - problem.optimum).sum(axis=(1, 2))


@pytest.mark.parametrize("seed", range(2))
def test_heterogeneity_biases_gossip_and_adapt_then_combine_least(seed: int) -> None:
    """With a constant step, nodes that want to go elsewhere hold each other off the optimum; all-reduce gets there."""
    problem, topology, rounds = Quadratics.draw(8, seed=seed), graph("ring-8"), 300
    local = sgd(0.6 / problem.smoothness)  # below (1 + l_n) / L = 2 / (3 L), which adapt-while-communicate needs
    start = np.zeros((8, DIMENSION))
    atc, awc, central = (
        errors(problem, simulate(algorithm, topology, problem.answers(), start, rounds))
        for algorithm in (DSGD(local=local, order=ATC), DSGD(local=local, order=AWC), AllReduceSGD(local=local))
    )
    assert central[-1] <= 1e-20
    assert 1 < atc[-1] < 0.9 * awc[-1]
    for stalled in (atc, awc):
        assert abs(stalled[-1] - stalled[-2]) <= 1e-9 * stalled[-1]


def test_the_bias_shrinks_almost_with_the_square_of_the_step() -> None:
    """The theory's O(lr^2): half the step leaves a quarter of the bias, up to terms of higher order."""
    problem, topology = Quadratics.draw(8), graph("ring-8")

    def bias(lr: float) -> float:
        start = np.repeat(problem.optimum[None], 8, axis=0)
        algorithm = DSGD(local=sgd(lr))
        return float(errors(problem, simulate(algorithm, topology, problem.answers(), start, round(5 / lr)))[-1])

    assert 3 < bias(0.04) / bias(0.02) < 4


@pytest.mark.parametrize(
    ("order", "factor", "converges"),
    [(AWC, 0.9, True), (AWC, 1.1, False), (ATC, 1.1, True), (CTA, 1.1, True)],
    ids=["awc below", "awc above", "atc above", "cta above"],
)
@pytest.mark.parametrize("on", ["ring-8", "path-4"])
def test_adapt_while_communicate_needs_eta_l_below_one_plus_l_n(
    on: str, order: Order, factor: float, converges: bool
) -> None:
    """Its error obeys E+ = (W - lr L I) E, whose last eigenvalue passes -1 where lr L = 1 + l_n; the others'
    W (1 - lr L) stays stable up to lr L = 2."""
    topology, L = graph(on), 3.0
    problem = Quadratics.isotropic(topology.nodes, L)
    lr = factor * (1 + spectrum(topology.schedule.matrix(0)).last) / L
    run = simulate(DSGD(local=sgd(lr), order=order), topology, problem.answers(), problem.starts(), 150)
    moved = np.abs(np.diff(run.models, axis=0)).max(axis=(1, 2))
    assert (moved[-1] < moved[0] / 10) if converges else (moved[-1] > 10 * moved[0])
