"""Directed schedules, on lockstep and over all wires: who sends to whom is not who receives from whom."""

from functools import partial

import numpy as np
import pytest
import torch

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.stochastic_gradient_push import StochasticGradientPush
from decentral.errors import ConfigError
from decentral.peer import Peer
from decentral.training.algorithm import between_nodes
from decentral.transport.dry import DryNode
from tests.contract.directed import (
    COLUMN,
    DOUBLY,
    ROUNDS,
    Addressed,
    Push,
    directed,
    in_lockstep,
    matrices,
    on_a_rank,
    plain,
    starts,
)
from tests.contract.problems import LAYOUTS, Quadratics, graph
from tests.contract.ranks import WIRES, on_ranks
from tests.contract.runs import same, sgd, simulate

pytestmark = pytest.mark.timeout(90)

ORDERS = ("adapt-then-combine", "combine-then-adapt", "adapt-while-communicate")
PUSHING = [(name, Push(**plain(overlaps=overlaps))) for name in COLUMN for overlaps in (False, True)]
ADDRESSED = [(name, Addressed(**plain(overlaps=overlaps))) for name in [*DOUBLY, *COLUMN] for overlaps in (False, True)]
DESCENDING = [(name, DSGD(**plain(order=order))) for name in DOUBLY for order in ORDERS]
DE_BIASED = [
    (name, StochasticGradientPush(**plain(delay=delay))) for name in ("lopsided-4", "one-way-4") for delay in (0, 2)
]
COMPRESSED = [(name, DSGD(**plain(order=ORDERS[2], every=2, compression="bf16"))) for name in DOUBLY]


def label(value: object) -> str:
    if isinstance(value, DSGD):
        return f"{value.order} {value.compression}"
    if isinstance(value, StochasticGradientPush):
        return f"SGP {value.delay} late"
    if isinstance(value, Push | Addressed):
        return f"{type(value).__name__}{' overlapped' * value.overlaps}"
    return str(value)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("on", "algorithm"), [*DESCENDING, *COMPRESSED, *DE_BIASED, *PUSHING, *ADDRESSED], ids=label)
def test_real_ranks_give_the_bits_of_lockstep(on: str, algorithm: Algorithm, wire: str) -> None:
    topology = directed(on)
    simulated = in_lockstep(algorithm, topology)
    runs = on_ranks(topology.nodes, lambda world: on_a_rank(world, algorithm, topology), wire=wire)
    for rank, run in enumerate(runs):
        assert same(run.states[rank], simulated.states[rank])
        assert run.bytes_sent == {rank: simulated.bytes_sent[rank]}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("on", DOUBLY)
def test_dsgd_computes_its_equations_with_the_matrix_of_each_turn(on: str, order: str) -> None:
    topology, lr = directed(on), 0.02
    problem = Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS)
    X, grad = starts(topology, torch.float64).numpy(), problem.gradients()
    run = simulate(DSGD(local=sgd(lr), order=order), topology, problem.answers(), X, ROUNDS)  # type: ignore[arg-type]
    for W in matrices(topology):
        if order == "adapt-then-combine":
            X = W @ (X - lr * grad(X))
        elif order == "combine-then-adapt":
            X = W @ X - lr * grad(W @ X)
        else:
            X = W @ X - lr * grad(X)
    np.testing.assert_allclose(run.final, X, rtol=0, atol=1e-12)


def test_the_matrices_are_directed() -> None:
    """Else all of this would say nothing."""
    for name in (*DOUBLY, *COLUMN):
        topology = directed(name)
        assert topology.schedule.kind == ("doubly-stochastic" if name in DOUBLY else "column-stochastic")
        assert any((W != W.T).any() for W in matrices(topology))
    rows = [directed("one-way-4").row(node) for node in range(4)]
    assert [(row.to, row.sources) for row in rows] == [((1,), ()), ((), (0,)), ((3,), ()), ((), (2,))]


@pytest.mark.parametrize(("on", "algorithm"), PUSHING, ids=label)
def test_pushed_sums_keep_their_mass_and_their_ratios_tend_to_the_mean(on: str, algorithm: Push) -> None:
    topology = directed(on)
    X = starts(topology, torch.float64)
    rounds = 120
    run = simulate(algorithm, topology, Quadratics.draw(topology.nodes).answers(), X, rounds)
    masses = np.array([float(state.mass) for state in run.states.values()])  # type: ignore[attr-defined]
    np.testing.assert_allclose(run.models.sum(axis=1), np.tile(X.sum(dim=0).numpy(), (rounds + 1, 1)), atol=1e-12)
    assert masses.sum() == pytest.approx(topology.nodes, abs=1e-12)
    assert np.ptp(masses) > 0.1, "else plain gossip would do"
    np.testing.assert_allclose(run.final / masses[:, None], np.tile(X.mean(dim=0), (topology.nodes, 1)), atol=1e-9)


def test_a_method_says_what_matrices_it_takes() -> None:
    assert between_nodes(Push(**plain()), directed("lopsided-4"), ()) is directed("lopsided-4")
    with pytest.raises(ConfigError, match="DSGD needs one that is doubly-stochastic"):
        between_nodes(DSGD(**plain()), directed("lopsided-4"), ())


@pytest.mark.parametrize("on", [*DOUBLY, *COLUMN, "path-4", "ring-9"])
def test_each_neighbor_hears_what_was_meant_for_it(on: str) -> None:
    topology = directed(on) if on in (*DOUBLY, *COLUMN) else graph(on)
    heard = {node: dict[int, float]() for node in range(topology.nodes)}
    for round in range(3):
        for node in range(topology.nodes):
            heard[node] |= {i: 10 * i + node + 100 * round for i in topology.row(node, round).sources}
    nothing = torch.full((topology.nodes, 13), -1.0, dtype=torch.float64)
    run = simulate(Addressed(**plain()), topology, Quadratics.draw(topology.nodes).answers(), nothing, 3)
    for node in range(topology.nodes):
        assert {i: value for i, value in enumerate(run.final[node]) if value >= 0} == heard[node]


@pytest.mark.parametrize(("on", "algorithm"), [*DESCENDING[:6], *DE_BIASED[::2], *PUSHING, *ADDRESSED], ids=label)
def test_bytes_are_known_before_the_run(on: str, algorithm: Algorithm) -> None:
    topology = directed(on)
    run = in_lockstep(algorithm, topology, torch.float64)
    for node in range(topology.nodes):
        dry = DryNode(topology.nodes)
        peer = Peer(node, topology.nodes, partial(topology.row, node), LAYOUTS["one block"])
        if isinstance(algorithm, Addressed):  # puts numbers into x, which a dry run has not
            sent = sum(len(topology.row(node, turn).to) for turn in range(ROUNDS)) * (64 + 24 + 8)
        else:
            state = algorithm.init(torch.empty(13, dtype=torch.float64, device="meta"), peer)
            for peer.round in range(ROUNDS):
                dry.advance(algorithm.step(state, peer))
            sent = dry.bytes_sent
            assert [(e.receivers, e.sources) for did in dry.rounds for e in did.exchanges] == [
                (len(row.to), len(row.sources)) for row in map(partial(topology.row, node), range(ROUNDS))
            ]
        assert run.bytes_sent[node] == sent
