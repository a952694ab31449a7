"""PowerGossip: what two sweeps remove, what it reduces to, graphs that change, and columns that vanish."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.power_gossip import PowerGossip, PowerGossipState
from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.peer import Block, Layout, LossAndGradient
from decentral.topology import gallery
from decentral.topology.topology import Topology
from decentral.training.algorithm import between_nodes
from decentral.transport.lockstep import LockstepDriver
from tests.contract.oracle import Matrix
from tests.contract.problems import LAYOUTS, Quadratics, flat, graph
from tests.contract.ranks import on_ranks
from tests.contract.runs import Run, play, same, sgd, simulate

ROWS, COLUMNS = 7, 5
MATRIX: Layout = (Block("matrix", (ROWS, COLUMNS), 0),)


def changing(schedule: Any) -> Topology:
    return gallery.load(example_with(topology={"name": "ring", "schedule": schedule}).topology, 6, Path())


def gossip(topology: Topology, starts: Matrix, rounds: int, layout: Layout, **settings: Any) -> Run:
    """No gradient anywhere: nothing but gossip."""
    method = PowerGossip(local=sgd(0.1), **settings)
    return simulate(method, topology, flat(topology.nodes), starts, rounds, layout=layout)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_two_sweeps_remove_a_difference_of_no_higher_rank(rank: int) -> None:
    random = np.random.default_rng(rank)
    first = random.standard_normal(ROWS * COLUMNS)
    difference = random.standard_normal((ROWS, rank)) @ random.standard_normal((rank, COLUMNS))
    starts = np.stack([first, first + difference.reshape(-1)])
    run = gossip(graph("path-2"), starts, 2, MATRIX, rank=rank)
    apart = np.abs(run.models[:, 1] - run.models[:, 0]).max(axis=1)
    assert apart[1] > 0.1
    assert apart[2] < 1e-12
    too_low = gossip(graph("path-2"), starts, 2, MATRIX, rank=rank - 1).final if rank > 1 else starts
    assert np.abs(too_low[1] - too_low[0]).max() > 0.1


def test_a_warm_start_finds_the_largest_direction() -> None:
    """Of a difference with singular values 4 and 1, what is left after some rounds is the small one, then nothing."""
    U, V = (np.linalg.qr(np.random.default_rng(0).standard_normal((size, 2)))[0] for size in (ROWS, COLUMNS))
    starts = np.stack([np.zeros(ROWS * COLUMNS), (U * [4, 1] @ V.T).reshape(-1)])
    run = gossip(graph("path-2"), starts, 12, MATRIX, diffusion=0.2)
    left = (run.models[-1, 1] - run.models[-1, 0]).reshape(ROWS, COLUMNS)
    large, small = (float(U[:, i] @ left @ V[:, i]) for i in (0, 1))
    assert abs(large) < 1.0
    assert small == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("on", ["ring-8", "social-32"])
def test_tensors_that_are_no_matrices_gossip_as_dsgd_does(on: str) -> None:
    topology = graph(on)
    problem = Quadratics.draw(topology.nodes, noisy_rounds=20)
    one, other = (
        simulate(method, topology, problem.answers(), problem.starts(), 20).models
        for method in (PowerGossip(local=sgd(0.05), rank=3), DSGD(local=sgd(0.05)))
    )
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("schedule", ["matchings", {"name": "matcha", "budget": 0.5}])
def test_gossip_on_a_changing_graph_reaches_the_mean(schedule: Any) -> None:
    topology, starts = changing(schedule), Quadratics.draw(6).starts()
    run = gossip(topology, starts, 80, LAYOUTS["many blocks"], iterations=2)
    np.testing.assert_allclose(run.final, np.tile(starts.mean(axis=0), (6, 1)), atol=0.02)


def test_one_iteration_on_a_changing_graph_is_refused() -> None:
    """In a cycle of two matchings each edge is used in even rounds only, or odd ones, and Q would never turn."""
    method = PowerGossip(local=sgd(0.1), iterations=3)
    with pytest.raises(ConfigError, match="found 3 iterations, required: an even number") as fault:
        between_nodes(method, changing("matchings"), ("topology",))
    assert fault.value.at == ("algorithm", "iterations")


def test_the_mean_stays_however_it_diverges() -> None:
    starts = Quadratics.draw(8).starts()
    run = gossip(graph("ring-8"), starts, 60, LAYOUTS["many blocks"], rank=2, diffusion=4.0)
    scale = np.abs(run.models).max()
    assert scale > 1e3
    assert np.abs(run.models.mean(axis=1) - starts.mean(axis=0)).max() <= 1e-13 * scale


def test_two_nodes_that_agreed_and_part_again_come_together_again() -> None:
    """Where they agree D is 0, and so would P and Q be for ever if vanished columns were not drawn anew."""
    topology, still = graph("path-2"), torch.zeros(2, ROWS * COLUMNS, dtype=torch.float64)
    method = PowerGossip(local=sgd(1.0), rank=2)
    answers = [_once(still[0], at=9), _once(still[0], at=99)]
    run = play(method, LockstepDriver(answers), topology, still, 40, MATRIX)
    apart = np.abs(run.models[:, 1] - run.models[:, 0]).max(axis=1)
    assert not apart[:10].any()
    assert apart[10] > 0.1
    assert apart[-1] < 1e-9


def _once(like: Tensor, at: int) -> Any:
    """A gradient in one round only."""
    rounds = iter(range(10**6))

    def gradient(x: Tensor) -> LossAndGradient:
        drawn = torch.from_numpy(np.random.default_rng(3).standard_normal(like.numel()))
        return LossAndGradient(torch.zeros((), dtype=x.dtype), drawn if next(rounds) == at else torch.zeros_like(like))

    return gradient


def test_real_ranks_on_a_changing_graph_give_the_same_bits_and_both_ends_hold_the_same() -> None:
    topology, method = changing("random-matchings"), PowerGossip(local=sgd(0.05), rank=2, iterations=2)
    problem = Quadratics.draw(6, noisy_rounds=12)
    starts = torch.from_numpy(problem.starts()).float()
    layout = LAYOUTS["many blocks"]

    def work(world: Any) -> Run:
        driver = world.driver(topology, problem.gradient(world.rank, torch.float32), run=7, epoch=1)
        try:
            return play(method, driver, topology, starts, 12, layout)
        finally:
            driver.close()

    runs = on_ranks(6, work, wire="shared-memory")
    simulated = simulate(method, topology, problem.answers(torch.float32), starts, 12, layout=layout)
    for rank, run in enumerate(runs):
        assert same(run.states[rank], simulated.states[rank])
    states = simulated.states
    for node, state in states.items():
        assert isinstance(state, PowerGossipState)
        assert state.factors
        for j, factors in state.factors.items():
            assert torch.equal(factors, states[j].factors[node])  # type: ignore[attr-defined]
