"""Asynchronous methods over cuts, at which all come to rest: what goes on is what would have, and nothing is lost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decentral.algorithms.asynchronous import Asynchronous
from decentral.topology.topology import Topology
from decentral.transport.clock import VirtualTime, Wire
from decentral.transport.driver import GradientAt
from tests.contract.free_runs import Steps, even, logged, play_freely
from tests.contract.oracle import Matrix
from tests.contract.problems import DIMENSION, Quadratics, flat, graph, pushing
from tests.contract.test_asynchronous import (
    CONSERVING,
    MOMENTUM,
    SIBLINGS,
    check_each_is_taken_once,
    common_start,
    method,
    uneven,
)
from tests.contract.test_hub import EVERYONE, star
from tests.contract.test_hub import method as hub_method


def in_segments(
    algorithm: Asynchronous,
    topology: Topology,
    gradients: Sequence[GradientAt],
    starts: Matrix,
    time: VirtualTime,
    goals: Sequence[int],
) -> tuple[Steps, float]:
    """A run that is cut once all nodes have made so many steps, and so on; and its seconds."""
    run, driver = play_freely(algorithm, topology, gradients, starts, time, rounds=goals[0])
    for run.rounds in goals[1:]:
        for peer, state in zip(run.peers, run.states, strict=True):
            peer.round = run.made[peer.node]
            algorithm.go_on(state, peer)
        driver.run_free(run)
    return run, driver.clock()


@pytest.mark.parametrize("which", SIBLINGS)
def test_where_all_are_equally_fast_cuts_change_nothing(which: str) -> None:
    name, options, _, _, made = SIBLINGS[which]
    topology, rounds = made(), 12
    problem, start = Quadratics.draw(topology.nodes, noisy_rounds=rounds), common_start(topology.nodes)
    algorithm = method(name, momentum=MOMENTUM, **options)
    whole, _ = play_freely(algorithm, topology, problem.answers(), start, even(topology.nodes), rounds=rounds)
    cut, seconds = in_segments(algorithm, topology, problem.answers(), start, even(topology.nodes), (1, 6, rounds))
    for steps in range(rounds + 1):
        assert np.array_equal(whole.after(steps), cut.after(steps)), steps
    assert seconds == rounds


SCHEDULES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**20),
        "loss": st.sampled_from([0.0, 0.2, 0.6]),
        "slow": st.sampled_from([None, 0, 3]),
        "spread": st.sampled_from([0.0, 0.3, 1.5]),
    }
)
GOALS = st.lists(st.integers(1, 5), min_size=2, max_size=4).map(lambda parts: np.cumsum(parts).tolist())


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([*CONSERVING]), SCHEDULES, GOALS)
def test_no_mass_is_lost_at_a_cut(which: str, schedule: dict[str, Any], goals: list[int]) -> None:
    """Nothing but gossip, so whatever changes the sum of all models is an error."""
    name = which.split()[0]
    topology = pushing(graph("tree-7"))[0] if name == "async-gradient-push" else graph("ring-9")
    nodes = topology.nodes
    starts = np.random.default_rng(schedule["seed"]).standard_normal((nodes, DIMENSION))
    time, events = logged(uneven(nodes=nodes, **schedule))
    algorithm = method(name, **CONSERVING[which])
    run, _ = in_segments(algorithm, topology, flat(nodes), starts, time, goals)
    assert run.made == [goals[-1]] * nodes
    weights = np.array([getattr(state, "weight", torch.ones(())).item() for state in run.states])[:, None]
    assert weights.sum() == pytest.approx(nodes, rel=1e-12)
    np.testing.assert_allclose((weights * run.final).sum(0), starts.sum(0), rtol=0, atol=1e-11 * nodes)
    check_each_is_taken_once(events.getvalue())
    if name == "async-gradient-push" and algorithm.max_delay is not None:
        assert max(len(algorithm.staleness(state)) for state in run.states) <= algorithm.max_delay + 1


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEDULES, GOALS)
def test_a_hub_hands_out_as_many_jobs_again_and_each_comes_back_once(
    schedule: dict[str, Any], goals: list[int]
) -> None:
    for which, options in EVERYONE.items():
        algorithm, time = hub_method(which.split()[0], **options), uneven(nodes=7, **schedule)
        run, _ = in_segments(algorithm, star(6), Quadratics.draw(7).answers(), common_start(7), time, goals)
        hub, rounds = run.states[0], goals[-1]
        assert run.made == [rounds] * 7, which
        half_done = [node for node in range(1, 7) if run.states[node].done > 0]
        assert [node for node, jobs in hub.jobs.items() for _ in jobs] == half_done, which
        assert hub.computed == 6 * (rounds // algorithm.every) * algorithm.every, which
        assert algorithm.max_delay is None or len(algorithm.staleness(hub)) <= algorithm.max_delay + 1


@pytest.mark.parametrize("name", ["swift", "async-gradient-push", "ad-psgd"])
def test_a_bound_on_delay_holds_after_a_cut_too(name: str) -> None:
    """Who had said its last before the cut is waited for again: who does not wait makes its 8 steps in 8 s."""
    time = VirtualTime([10.0] + [1.0] * 7, lambda i, j: Wire(0.01))
    problem, algorithm = Quadratics.draw(8), method(name, max_delay=1)
    run, _ = in_segments(algorithm, graph("ring-8"), problem.answers(), common_start(8), time, (2, 10))
    assert run.seconds[1][9] > run.seconds[0][3]


def test_a_hub_that_has_no_step_to_make_serves_those_that_have() -> None:
    """Cuts before their time may leave it ahead; else who waits for a job from it would wait for ever."""
    topology, algorithm = star(3), hub_method("async-sgd")
    run, driver = play_freely(algorithm, topology, Quadratics.draw(4).answers(), common_start(4), even(4), rounds=2)
    run.seconds[0] += [2.0] * 3
    for peer, state in zip(run.peers, run.states, strict=True):
        algorithm.go_on(state, peer)
    run.rounds = 5
    driver.run_free(run)
    assert run.made == [5] * 4
    assert run.states[0].computed == 3 * 5
