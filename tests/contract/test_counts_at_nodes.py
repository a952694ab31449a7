"""Counts that nodes keep and are asked for, against counts that the token carries: one walk, one model, other bytes."""

from typing import Any

import numpy as np
import pytest
import torch

from decentral.algorithms.tokens import TokenMethod
from decentral.errors import ConfigError
from decentral.topology.hops import STAY, proposal
from decentral.topology.walks import uniform
from decentral.transport.clock import LettersInTime, VirtualTime, Wire
from tests.contract.problems import Quadratics, graph
from tests.contract.ranks import on_ranks
from tests.contract.runs import Run, play, simulate
from tests.contract.test_tokens import SEED, method, on_a_rank, start, tokens_of, walked

WALKS: dict[str, tuple[str, dict[str, Any]]] = {
    "srrw": ("mcgd", {"kernel": "srrw", "alpha": 4.0}),
    "hdt": ("mcgd", {"kernel": "hdt", "alpha": 4.0, "step_by": "adam"}),
    "counting": ("sa-srrw", {"gamma_decay": 1.0}),
    "forgetting": ("sa-srrw", {"gamma_decay": 0.8, "alpha": 10.0}),
    "forgetting soon": ("sa-srrw", {"gamma_decay": 0.3, "kernel": "hdt"}),
    "walkman": ("walkman", {"kernel": "srrw", "alpha": 2.0}),
}


def pair(name: str, on: str, visits: int, settings: dict[str, Any]) -> list[TokenMethod]:
    """The method with counts on the token, and with counts at the nodes."""
    return [method(name, on, visits=visits, counts_at=at, **settings) for at in ("token", "nodes")]


def lockstep(algorithm: TokenMethod, on: str, rounds: int) -> Run:
    problem = Quadratics.draw(graph(on).nodes, noisy_rounds=9)
    return simulate(algorithm, graph(on), problem.answers(), start(problem), rounds)


def outcome(run: Run) -> tuple[bytes, int, int]:
    """One token's model, where it was and how often."""
    (token,) = tokens_of(run)
    return token.x.numpy().tobytes(), token.came_from, token.visit


@pytest.mark.parametrize("visits", [1, 60])
@pytest.mark.parametrize(("name", "settings"), WALKS.values(), ids=WALKS)
def test_one_token_makes_the_same_visits_and_ends_with_the_same_bits(
    name: str, settings: dict[str, Any], visits: int
) -> None:
    """For a < 1 the kernels differ in their last bits, so that a path could differ too; it does not at this seed."""
    rounds = 12 if visits == 1 else 3
    carried, kept = (lockstep(each, "social-32", rounds) for each in pair(name, "social-32", visits, settings))
    assert outcome(carried) == outcome(kept)
    assert tokens_of(kept)[0].counts is None


@pytest.mark.parametrize(("name", "settings"), [WALKS["srrw"], WALKS["forgetting"]])
def test_nodes_keep_what_the_token_would_carry(name: str, settings: dict[str, Any]) -> None:
    carried, kept = (lockstep(each, "social-32", 3) for each in pair(name, "social-32", 60, settings))
    counts = tokens_of(carried)[0].counts
    tallies = torch.tensor([state.tally for state in kept.states.values()], dtype=torch.float64)  # type: ignore[attr-defined]
    shares = tallies / tallies.sum() if name == "mcgd" else tallies.softmax(0)
    assert counts is not None
    torch.testing.assert_close(shares, counts / counts.sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kernel", ["srrw", "hdt"])
def test_the_meter_shows_two_small_letters_for_each_neighbor_asked_in_place_of_all_counts(kernel: str) -> None:
    rounds, visits, topology = 3, 20, graph("social-32")
    carried, kept = (
        lockstep(each, "social-32", rounds)
        for each in pair("mcgd", "social-32", visits, {"kernel": kernel, "alpha": 4.0})
    )
    algorithm = method("mcgd", kernel=kernel, alpha=4.0)
    path, chain = walked(algorithm, rounds * visits + 1)[0], algorithm.chain
    assert chain is not None

    def asked(visit: int, node: int) -> int:
        widths = chain.surroundings(node).widths
        return len(widths) if kernel == "srrw" else int(proposal(widths, uniform(SEED, 0, visit))[0] != STAY)

    letters = 2 * sum(asked(visit + 1, node) for visit, node in enumerate(path[:-1].tolist()))
    hops = int((path[1:] != path[:-1]).sum())
    difference = sum(kept.bytes_sent.values()) - sum(carried.bytes_sent.values())
    assert difference == letters * (64 + 8) - hops * 8 * topology.nodes


@pytest.mark.parametrize(("name", "settings"), [WALKS["srrw"], WALKS["forgetting"]])
def test_the_clock_and_real_ranks_agree(name: str, settings: dict[str, Any]) -> None:
    _, algorithm = pair(name, "path-4", 9, settings)
    expected, problem = lockstep(algorithm, "path-4", 4), Quadratics.draw(4, noisy_rounds=9)
    time = VirtualTime([0.1, 0.3, 0.2, 0.7], lambda i, j: Wire(0.01 * (1 + i), 1e4))
    timed = play(
        algorithm, LettersInTime(problem.answers(), time), graph("path-4"), torch.from_numpy(start(problem)), 4
    )
    ranks = on_ranks(4, lambda world: on_a_rank(world, algorithm, "path-4", 4))
    real = Run({n: run.states[n] for n, run in enumerate(ranks)}, expected.models, [], {})
    assert outcome(expected) == outcome(timed) == outcome(real)


CROWDS = [("lockstep", "social-15", "hdt"), ("lockstep", "path-2", "srrw"), ("gloo", "path-2", "srrw")]


@pytest.mark.parametrize(("driver", "on", "kernel"), CROWDS)
def test_holders_that_ask_each_other_at_once_do_not_wait_for_ever(driver: str, on: str, kernel: str) -> None:
    """Six tokens, on two nodes where each hop asks the other one, which as a rule holds a token and asks too; and where
    a token comes while another one's questions, which are to other nodes, wait for their answers."""
    algorithm = method("sa-srrw", on, kernel=kernel, tokens=6, visits=25, counts_at="nodes", gamma_decay=1.0)
    if driver == "gloo":
        ranks = on_ranks(2, lambda world: on_a_rank(world, algorithm, "path-2", 3))
        run = Run({n: each.states[n] for n, each in enumerate(ranks)}, ranks[0].models, [], {})
    else:
        run = lockstep(algorithm, on, 3)
    assert [token.visit for token in tokens_of(run)] == [75] * 6
    tallies = np.array([state.tally for state in run.states.values()])  # type: ignore[attr-defined]
    assert tallies.sum() == 6 * 75 + len(tallies), "all visits of all tokens are counted, and one fake one at each node"


def test_counts_that_no_kernel_needs_are_refused() -> None:
    with pytest.raises(ConfigError, match="kernel metropolis counts no visits, found counts_at: nodes"):
        method("mcgd", "ring-8", counts_at="nodes")
