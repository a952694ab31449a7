"""Routes that all nodes work out: the visits and the models of letters, without a notice, over every link."""

from typing import Any

import numpy as np
import pytest
import torch

from decentral.algorithms.routed_round import Hop, exchanges
from decentral.algorithms.token import Token
from decentral.peer import LossAndGradient
from decentral.transport.clock import ExchangesInTime, VirtualTime, Wire
from decentral.transport.lockstep import LockstepDriver
from tests.contract import oracle_tokens as oracle
from tests.contract.problems import DIMENSION, Quadratics, graph
from tests.contract.ranks import WIRES, on_ranks
from tests.contract.runs import Run, play, same, simulate
from tests.contract.test_tokens import (
    LR,
    assert_it_goes_on,
    gradients,
    method,
    on_a_rank,
    peers_of,
    start,
    tokens_of,
    walked,
)

ALIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "counting": ("sa-srrw", {"visits": 5, "gamma_decay": 1.0, "step_by": "adam"}),
    "forgetting": ("sa-srrw", {"visits": 5}),
    "hdt": ("mcgd", {"visits": 5, "kernel": "hdt", "alpha": 3.0, "decay": 0.2}),
    "never back": ("mcgd", {"visits": 5, "kernel": "non-backtracking", "step_by": "heavy-ball"}),
    "walkman": ("walkman", {"visits": 3}),
    "several": ("mcgd", {"tokens": 5}),
    "meeting": ("mcgd", {"tokens": 5, "meeting": "average", "kernel": "srrw", "alpha": 2.0}),
    "gossip": ("token-gossip", {"tokens": 3}),
}


def run_on(name: str, on: str, rounds: int, **settings: Any) -> Run:
    problem = Quadratics.draw(graph(on).nodes, noisy_rounds=9)
    return simulate(method(name, on, **settings), graph(on), problem.answers(), start(problem), rounds)


def bits(tokens: list[Token]) -> list[tuple[object, ...]]:
    return [(t.number, t.visit, t.came_from, *(vector.numpy().tobytes() for vector in t.vectors)) for t in tokens]


@pytest.mark.parametrize(("name", "settings"), ALIKE.values(), ids=ALIKE)
def test_they_lead_to_the_models_of_letters(name: str, settings: dict[str, Any]) -> None:
    letters, routed = (run_on(name, "ring-8", 9, route=route, **settings) for route in ("letters", "seeded"))
    assert bits(tokens_of(routed)) == bits(tokens_of(letters))
    np.testing.assert_array_equal(routed.final, letters.final)
    assert sum(routed.bytes_sent.values()) < sum(letters.bytes_sent.values())
    for routes in (state.routes for state in routed.states.values()):
        assert [(route.token.visit, route.token.came_from) for route in routes] == [
            (token.visit, token.came_from) for token in tokens_of(letters)
        ]


def test_several_tokens_with_several_visits_follow_their_equations_slot_by_slot() -> None:
    problem, visits, rounds = Quadratics.draw(8, noisy_rounds=20), 7, 5
    algorithm = method("mcgd", "ring-8", tokens=5, visits=visits, route="seeded")
    run = simulate(algorithm, graph("ring-8"), problem.answers(), start(problem), rounds)
    paths = walked(algorithm, visits * rounds + 1)
    expected = oracle.several(problem.starts()[0], paths, gradients(problem), LR, merge=False)
    found = np.stack([token.x.numpy() for token in tokens_of(run)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    hops = int((paths[:, 1:] != paths[:, :-1]).sum())
    assert sum(run.bytes_sent.values()) == hops * (64 + DIMENSION * 8 + 5 * 8 + 8), "nothing but tokens is sent"


def test_tokens_that_take_one_direction_of_an_edge_go_one_after_the_other() -> None:
    hops = [Hop(0, 1, 2), Hop(1, 2, 1), Hop(2, 1, 2), Hop(3, 4, 4), Hop(4, 3, 2), Hop(5, 1, 2)]
    assert exchanges(hops) == [[hops[0], hops[1], hops[4]], [hops[2]], [hops[5]]]


REAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "around": ("ring-8", "sa-srrw", {"visits": 3, "tokens": 6, "step_by": "adam"}),
    "many tokens on few nodes": ("path-4", "mcgd", {"tokens": 9, "visits": 6}),
    "crossing": ("path-2", "mcgd", {"tokens": 8, "visits": 9, "kernel": "simple"}),
    "gossip": ("path-4", "token-gossip", {"tokens": 3, "visits": 4, "meeting": "average"}),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("on", "name", "settings"), REAL.values(), ids=REAL)
def test_real_ranks_give_the_same_bits_whatever_their_timing(
    on: str, name: str, settings: dict[str, Any], wire: str
) -> None:
    """With letters, whoever is first at a node takes its next minibatch, so these models would depend on timing."""
    nodes, algorithm = graph(on).nodes, method(name, on, route="seeded", **settings)
    simulated = run_on(name, on, 4, route="seeded", **settings)
    runs = on_ranks(nodes, lambda world: on_a_rank(world, algorithm, on, 4), wire=wire)
    for rank, run in enumerate(runs):
        assert same(run.states[rank], simulated.states[rank])
        assert run.bytes_sent == {rank: simulated.bytes_sent[rank]}


def test_a_token_takes_a_gradient_and_a_hop_at_each_visit_and_no_more() -> None:
    time, problem = VirtualTime([1.0, 3.0], lambda i, j: Wire(0.125)), Quadratics.draw(2, noisy_rounds=9)
    algorithm = method("mcgd", "path-2", kernel="simple", visits=6, route="seeded")
    driver = ExchangesInTime(LockstepDriver(problem.answers()), time)
    found = play(algorithm, driver, graph("path-2"), torch.from_numpy(start(problem)), 1)
    assert time.seconds == 3 * 1.0 + 3 * 3.0 + 6 * 0.125
    assert bits(tokens_of(found)) == bits(tokens_of(run_on("mcgd", "path-2", 1, kernel="simple", visits=6)))


def test_the_mean_of_what_nodes_return_is_the_mean_loss_of_all_visits() -> None:
    problem, algorithm = Quadratics.draw(8), method("mcgd", "ring-8", visits=10, tokens=2, route="seeded")
    losses: list[float] = []

    def watched(gradient: Any, lost: bool) -> Any:
        def at(x: torch.Tensor) -> LossAndGradient:
            answer = gradient(x)
            losses.append(float(answer.loss))
            return LossAndGradient(answer.loss / 0 if lost else answer.loss, answer.gradient)

        return at

    paths = walked(algorithm, 10)
    for lost in (None, int(paths[0, 3])):
        losses.clear()
        peers = peers_of(graph("ring-8"))
        states = {n: algorithm.init(torch.from_numpy(problem.starts()[0].copy()), peers[n]) for n in range(8)}
        driver = LockstepDriver([watched(answer, node == lost) for node, answer in enumerate(problem.answers())])
        returned = driver.advance({n: algorithm.step(states[n], peers[n]) for n in range(8)}, 0)
        assert len(losses) == 20
        if lost is None:
            assert sum(map(float, returned.values())) / 8 == pytest.approx(sum(losses) / 20, rel=1e-12)
            assert all(float(returned[n]) == 0 for n in set(range(8)) - set(paths.ravel().tolist()))
        else:
            assert [n for n, loss in returned.items() if not loss.isfinite()] == [lost]


def test_a_run_goes_on_from_what_a_checkpoint_holds() -> None:
    algorithm = method("sa-srrw", "ring-8", tokens=3, visits=4, route="seeded")
    assert_it_goes_on(algorithm, rounds=9, at=4, poison=True)
