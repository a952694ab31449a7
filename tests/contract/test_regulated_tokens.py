"""Tokens that fork and drop in a run: all nodes agree on who lives, whatever the driver, and a round still ends."""

from typing import Any

import numpy as np
import pytest
import torch

from decentral.algorithms.token_round import TokenState
from decentral.algorithms.tokens import TokenMethod
from decentral.errors import ConfigError, DecentralError
from decentral.topology import population
from decentral.training.packing import pack, unpack
from decentral.transport.clock import LettersInTime, VirtualTime, Wire
from tests.contract.problems import Quadratics, graph
from tests.contract.ranks import on_ranks
from tests.contract.runs import Run, play, same, simulate
from tests.contract.test_tokens import method, on_a_rank, peers_of, start, tokens_of

LIVELY: dict[str, Any] = {"tokens": 5, "fork_below": 2.2, "drop_above": 3.5, "loss": 0.02}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes decide from the first rounds on, so that short runs have forks and drops."""
    monkeypatch.setattr(population, "WARM_UP", 0.5)


def lockstep(algorithm: TokenMethod, on: str, rounds: int) -> Run:
    problem = Quadratics.draw(graph(on).nodes, noisy_rounds=9)
    return simulate(algorithm, graph(on), problem.answers(), start(problem), rounds)


def alive(run: Run) -> list[int]:
    """The tokens that live, on which all nodes agree and which are held, each once, with its visits."""
    crowds = [state.crowd for state in run.states.values() if isinstance(state, TokenState)]
    assert all(crowd is not None for crowd in crowds)
    (known,) = {(tuple(crowd.alive), crowd.ever) for crowd in crowds if crowd is not None}
    assert [token.number for token in tokens_of(run)] == list(known[0])
    assert sum(len(state.held) for state in run.states.values()) == len(known[0])  # type: ignore[attr-defined]
    return list(known[0])


@pytest.mark.parametrize("visits", [1, 4])
@pytest.mark.parametrize("on", ["ring-8", "social-15"])
def test_all_nodes_agree_on_who_lives_in_every_round(on: str, visits: int) -> None:
    algorithm, changes = method("mcgd", on, visits=visits, **LIVELY), set()
    for rounds in (3, 20):
        run = lockstep(algorithm, on, rounds)
        living = alive(run)
        assert {token.visit for token in tokens_of(run)} == {visits * rounds}
        changes.add(tuple(living))
    assert len(changes) == 2
    assert max(living) > 5, "some are forks"
    assert set(range(5)) - set(living), "some are no more"


@pytest.mark.parametrize(("name", "more"), [("mcgd", {}), ("sa-srrw", {"step_by": "adam"})])
def test_the_clock_and_real_ranks_agree(name: str, more: dict[str, Any]) -> None:
    """Fates are decided by what was seen before the round, so timing has no part in them where visits is 1."""
    algorithm, rounds = method(name, "path-4", **LIVELY, **more), 30
    expected, problem = lockstep(algorithm, "path-4", rounds), Quadratics.draw(4, noisy_rounds=9)
    time = VirtualTime([0.1, 0.3, 0.2, 0.7], lambda i, j: Wire(0.01 * (1 + i), 1e4))
    timed = play(
        algorithm, LettersInTime(problem.answers(), time), graph("path-4"), torch.from_numpy(start(problem)), rounds
    )
    ranks = on_ranks(4, lambda world: on_a_rank(world, algorithm, "path-4", rounds))
    assert alive(expected) != list(range(5))
    for node, state in expected.states.items():
        assert same(state, timed.states[node])
        assert same(state, ranks[node].states[node])
        assert ranks[node].bytes_sent == {node: expected.bytes_sent[node]}


def test_a_fork_has_what_its_parent_had_when_the_round_began() -> None:
    algorithm, fresh = method("sa-srrw", "path-4", tokens=5, fork_below=2.4, loss=0.03), set[int]()
    after = lockstep(algorithm, "path-4", 8)
    for rounds in range(9, 40):
        before, after = after, lockstep(algorithm, "path-4", rounds)
        if fresh := set(alive(after)) - set(alive(before)):
            break
    assert fresh, "a round with forks"
    had = {token.x.numpy().tobytes(): token for token in tokens_of(before)}
    for fork in (token for token in tokens_of(after) if token.number in fresh):
        parent = had[fork.x.numpy().tobytes()]
        assert fork.counts is not None
        assert parent.counts is not None
        assert torch.equal(fork.counts, parent.counts)
        assert fork.visit == parent.visit + 1


def test_without_forks_all_are_lost_in_the_end_and_all_nodes_say_so() -> None:
    algorithm = method("mcgd", "ring-8", tokens=3, loss=0.2)
    with pytest.raises(DecentralError, match=r"all tokens were lost by round \d+; set algorithm\.fork_below"):
        lockstep(algorithm, "ring-8", 100)


def test_the_last_one_does_not_drop() -> None:
    algorithm = method("mcgd", "path-2", tokens=20, fork_below=0.1, drop_above=0.4, visits=60)
    run = lockstep(algorithm, "path-2", 12)
    assert len(alive(run)) == 1


def test_the_averaged_model_is_the_mean_of_those_that_live() -> None:
    algorithm, peers = method("mcgd", "ring-8", **LIVELY), peers_of(graph("ring-8"))
    run = lockstep(algorithm, "ring-8", 40)
    shares = [share for n, state in run.states.items() if (share := algorithm.share(state, peers[n]))]
    mean = sum(total for total, _ in shares) / sum(weight for _, weight in shares)
    expected = np.mean([token.x.numpy() for token in tokens_of(run)], axis=0)
    assert len(tokens_of(run)) != 5
    np.testing.assert_allclose(mean, expected, rtol=1e-12)


def test_no_letter_is_kept_beyond_its_time() -> None:
    algorithm, problem = method("mcgd", "ring-8", **LIVELY), Quadratics.draw(8)
    clean, poisoned = (
        simulate(algorithm, graph("ring-8"), problem.answers(), start(problem), 24, poison=poison)
        for poison in (False, True)
    )
    assert all(same(clean.states[node], poisoned.states[node]) for node in clean.states)


def test_a_checkpoint_holds_what_nodes_know_of_the_tokens() -> None:
    algorithm, peers = method("mcgd", "ring-8", **LIVELY), peers_of(graph("ring-8"))
    run = lockstep(algorithm, "ring-8", 20)
    for node, state in run.states.items():
        fresh = algorithm.init(torch.zeros_like(state.x), peers[node])
        tree, tensors = pack(state, "state")
        unpack(tree, {key: tensor.clone() for key, tensor in tensors.items()}, fresh)
        assert same(state, fresh)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "drops alone": ({"drop_above": 3.0}, "found drop_above: 3 alone; give fork_below too"),
    "forks from the start on": ({"fork_below": 2.0, "tokens": 4}, "they would fork from the start on"),
    "counts that stay": (
        {"loss": 0.1, "kernel": "srrw", "counts_at": "nodes"},
        "found counts_at: nodes with fork_below or loss; a run has one of these at most",
    ),
}


@pytest.mark.parametrize(("settings", "told"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        method("mcgd", "ring-8", **settings)
