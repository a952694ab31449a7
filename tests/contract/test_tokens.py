"""The battery of token methods: whoever enters TOKEN_METHODS enters CASES and is held to the same contract."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from decentral.algorithms import TOKEN_METHODS
from decentral.algorithms.token import Token
from decentral.algorithms.token_exchange import ExchangeState, TokenExchange
from decentral.algorithms.token_round import TOKEN
from decentral.algorithms.tokens import TokenMethod
from decentral.errors import ConfigError, DecentralError, MissingEnvironmentError
from decentral.peer import Effect, Gradient, Letter, Peer, Send
from decentral.topology.chains import Chain
from decentral.topology.topology import Topology
from decentral.training.packing import pack, unpack
from decentral.transport.driver import Step
from decentral.transport.lockstep import LockstepDriver
from decentral.transport.world import World
from tests.contract import oracle_tokens as oracle
from tests.contract.oracle import Matrix
from tests.contract.problems import DIMENSION, LAYOUTS, Quadratics, alone, graph
from tests.contract.ranks import on_ranks
from tests.contract.runs import Run, play, same, sgd, simulate

LR = 0.05
SEED = 0  # of `play`'s peers

Paths = Callable[[Chain, int], Sequence[int]]


def counted(chain: Chain, visits: int) -> Sequence[int]:
    """The first token's path."""
    return cast(Sequence[int], chain.path(SEED, 0, visits).tolist())


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to set a method up with one token, and what it must do."""

    equations: Callable[[oracle.Vector, Sequence[int], oracle.Gradient, int], oracle.Vector]
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Paths = counted


def forgetful(a: float) -> Paths:
    return lambda chain, visits: oracle.forgetful_path(chain, SEED, 0, visits, a)


CASES: dict[str, dict[str, Case]] = {
    "mcgd": {
        "": Case(equations=lambda x, path, grad, _: oracle.mcgd(x, path, grad, LR)),
        "decaying simple": Case(
            equations=lambda x, path, grad, _: oracle.mcgd(x, path, grad, LR, 0.6),
            settings={"kernel": "simple", "decay": 0.6},
        ),
        "heavy ball back never": Case(
            equations=lambda x, path, grad, _: oracle.heavy_ball(x, path, grad, LR, 0.5, 0.8),
            settings={"step_by": "heavy-ball", "beta1": 0.8, "decay": 0.5, "kernel": "non-backtracking"},
        ),
        "adam hdt": Case(
            equations=lambda x, path, grad, _: oracle.adam(x, path, grad, LR, 0.2, (0.8, 0.95)),
            settings={"step_by": "adam", "beta1": 0.8, "beta2": 0.95, "decay": 0.2, "kernel": "hdt", "alpha": 3.0},
        ),
    },
    "sa-srrw": {
        "": Case(
            equations=lambda x, path, grad, _: oracle.mcgd(x, path, grad, LR, 0.9),
            path=forgetful(0.8),
        ),
        "same decay": Case(
            equations=lambda x, path, grad, _: oracle.mcgd(x, path, grad, LR, 0.7),
            settings={"alpha": 10.0, "gamma_decay": 0.7, "decay": 0.7},
            path=forgetful(0.7),
        ),
        "counting": Case(
            equations=lambda x, path, grad, _: oracle.mcgd(x, path, grad, LR, 0.8),
            settings={"alpha": 2.0, "gamma_decay": 1.0, "decay": 0.8},
        ),
    },
    "walkman": {
        "": Case(equations=lambda x, path, grad, n: oracle.walkman(x, path, grad, LR, n)),
        "uniform": Case(
            equations=lambda x, path, grad, n: oracle.walkman(x, path, grad, LR, n),
            settings={"kernel": "metropolis"},
        ),
    },
    "token-gossip": {},
    "token-exchange": {},  # as token-gossip, it has no model that walks alone: tests of its own
}
ALL = [pytest.param(name, case, id=f"{name} {label}") for name, cases in CASES.items() for label, case in cases.items()]
every_case = pytest.mark.parametrize(("name", "case"), ALL)


def method(name: str, on: str = "social-32", lr: float = LR, **settings: Any) -> TokenMethod:
    return TOKEN_METHODS[name](local=sgd(lr), **settings).on(graph(on))


def start(problem: Quadratics) -> Matrix:
    return np.repeat(problem.starts()[:1], problem.nodes, axis=0)


def gradients(problem: Quadratics) -> oracle.Gradient:
    """Each node's with its noise, in the order in which the node is asked."""
    asked = [0] * problem.nodes

    def at(node: int, x: oracle.Vector) -> oracle.Vector:
        noise = problem.noise[asked[node], node] if asked[node] < len(problem.noise) else 0.0
        asked[node] += 1
        return problem.A[node] @ (x - problem.b[node]) + noise

    return at


def tokens_of(run: Run) -> list[Token]:
    """All, in order of numbers."""
    held = {number: token for state in run.states.values() for number, token in state.held.items()}
    return [token for _, token in sorted(held.items())]


def walked(algorithm: TokenMethod, visits: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(K, T): where each token is before each visit."""
    assert algorithm.chain is not None
    return np.stack([algorithm.chain.path(SEED, k, visits) for k in range(algorithm.tokens)])


def peers_of(topology: Topology) -> dict[int, Peer]:
    return {n: Peer(n, topology.nodes, partial(topology.row, n), LAYOUTS["one block"]) for n in range(topology.nodes)}


def test_every_token_method_is_tested() -> None:
    assert CASES.keys() == TOKEN_METHODS.keys()


@pytest.mark.parametrize(("visits", "rounds"), [(1, 20), (30, 4)])
@every_case
def test_it_computes_its_equations(name: str, case: Case, visits: int, rounds: int) -> None:
    algorithm = method(name, visits=visits, **case.settings)
    assert algorithm.chain is not None
    problem = Quadratics.draw(32, noisy_rounds=20)
    run = simulate(algorithm, graph("social-32"), problem.answers(), start(problem), rounds)
    (token,), path = tokens_of(run), case.path(algorithm.chain, visits * rounds)
    expected = case.equations(problem.starts()[0], path, gradients(problem), 32)
    np.testing.assert_allclose(token.x.numpy(), expected, rtol=0, atol=1e-10)
    assert token.visit == visits * rounds
    assert token.came_from == path[-1]
    holder = next(state for state in run.states.values() if state.held)
    assert torch.equal(holder.x, token.x), "the holder's model file is the token's model"


def test_weight_decay_is_in_the_gradient() -> None:
    problem = Quadratics.draw(32)
    algorithm = TOKEN_METHODS["mcgd"](local=sgd(LR, weight_decay=0.3), visits=30).on(graph("social-32"))
    run = simulate(algorithm, graph("social-32"), problem.answers(), start(problem), 4)
    expected = oracle.mcgd(problem.starts()[0], walked(algorithm, 120)[0].tolist(), gradients(problem), LR, decay=0.3)
    np.testing.assert_allclose(tokens_of(run)[0].x.numpy(), expected, rtol=0, atol=1e-10)


def test_alpha_0_is_the_base_chain_bit_for_bit() -> None:
    problem = Quadratics.draw(32, noisy_rounds=20)
    runs = [
        simulate(method(name, visits=30, decay=0.9, **more), graph("social-32"), problem.answers(), start(problem), 4)
        for name, more in (("mcgd", {}), ("sa-srrw", {"alpha": 0.0}), ("sa-srrw", {"alpha": 0.0, "kernel": "hdt"}))
    ]
    base, *others = (tokens_of(run)[0] for run in runs)
    for other in others:
        assert (other.x.numpy().tobytes(), other.came_from) == (base.x.numpy().tobytes(), base.came_from)


def test_the_proximal_walkman_comes_near_the_exact_one() -> None:
    problem, lr = Quadratics.draw(8), 0.3
    algorithm = method("walkman", "ring-8", lr, variant="proximal", inner_steps=60, inner_lr=0.2, visits=10)
    run = simulate(algorithm, graph("ring-8"), problem.answers(), start(problem), 6)

    def proximal(i: int, center: oracle.Vector, lr: float) -> oracle.Vector:
        A, b = problem.A[i], problem.b[i]
        return np.linalg.solve(A + np.eye(len(b)) / lr, A @ b + center / lr)

    expected = oracle.proximal_walkman(problem.starts()[0], walked(algorithm, 60)[0].tolist(), proximal, lr, 8)
    np.testing.assert_allclose(tokens_of(run)[0].x.numpy(), expected, rtol=0, atol=1e-5)


def test_walkman_keeps_its_invariant_and_is_exact() -> None:
    """x = mean_i (y_i - z_i); D-SGD and random-walk SGD at this rate stall at a bias."""
    problem = Quadratics.draw(8)
    algorithm = method("walkman", "ring-8", lr=1 / (2 * problem.smoothness + 2), visits=600)
    run = simulate(algorithm, graph("ring-8"), problem.answers(), start(problem), 10)
    x = tokens_of(run)[0].x.numpy()
    kept = torch.stack([state.y - state.z for state in run.states.values()]).mean(0).numpy()
    np.testing.assert_allclose(x, kept, rtol=0, atol=1e-12)
    np.testing.assert_allclose(x, problem.optimum, rtol=0, atol=1e-10)


@pytest.mark.parametrize("meeting", ["independent", "average"])
def test_several_tokens_follow_their_equations(meeting: str) -> None:
    problem, rounds = Quadratics.draw(8, noisy_rounds=20), 40
    algorithm = method("mcgd", "ring-8", tokens=5, meeting=meeting)
    run = simulate(algorithm, graph("ring-8"), problem.answers(), start(problem), rounds)
    paths = walked(algorithm, rounds + 1)
    assert any(len(set(at)) < 5 for at in paths.T), "some meet"
    expected = oracle.several(problem.starts()[0], paths, gradients(problem), LR, merge=meeting == "average")
    found = np.stack([token.x.numpy() for token in tokens_of(run)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_gossip_through_tokens_follows_its_equations_and_keeps_the_sum() -> None:
    problem, rounds, pull = Quadratics.draw(8, noisy_rounds=40), 40, 0.3
    algorithm = method("token-gossip", "ring-8", tokens=3, pull=pull)
    run = simulate(algorithm, graph("ring-8"), problem.answers(), start(problem), rounds)
    paths = walked(algorithm, rounds + 1)
    nodes, tokens = oracle.token_gossip(problem.starts()[0], paths, gradients(problem), LR, pull, 8)
    np.testing.assert_allclose(run.final, nodes, rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.stack([token.x.numpy() for token in tokens_of(run)]), tokens, rtol=0, atol=1e-10)
    still = simulate(
        method("token-gossip", "ring-8", lr=1e-300, tokens=3, pull=pull),
        graph("ring-8"),
        problem.answers(),
        problem.starts(),
        rounds,
    )
    whole = still.final.sum(0) + sum(token.x.numpy() for token in tokens_of(still))
    begun = [problem.starts()[walked(algorithm, 1)[k, 0]] for k in range(3)]
    np.testing.assert_allclose(whole, problem.starts().sum(0) + sum(begun), rtol=0, atol=1e-12)


def test_token_exchange_follows_its_equations_and_each_node_computes_as_often_as_is_likely() -> None:
    problem, rounds, K, rho, c = Quadratics.draw(8, noisy_rounds=40), 60, 3, 0.1, 0.3
    algorithm = method("token-exchange", "ring-8", tokens=K, rho=rho, pull=c, exchange_share=0.4)
    assert isinstance(algorithm, TokenExchange)
    run = simulate(algorithm, graph("ring-8"), problem.answers(), start(problem), rounds)
    peer = peers_of(graph("ring-8"))[0]
    computes = np.array([[algorithm.computes(i, r, peer) for i in range(8)] for r in range(rounds)])
    assert computes[0].tolist() == [1] * 8
    assert computes[1:].mean() == pytest.approx(3 * 0.6 / (0.4 * 8), abs=0.07)
    paths = walked(algorithm, rounds)
    nodes = oracle.token_exchange(problem.starts()[0], paths, computes, gradients(problem), LR, rho, c)
    np.testing.assert_allclose(run.final, nodes, rtol=0, atol=1e-10)


@pytest.mark.parametrize("settings", [{"tokens": 1}, {"tokens": 3, "gap": 3, "meeting": "average"}], ids=str)
def test_token_exchange_keeps_its_invariant_and_is_exact_with_heterogeneous_data(settings: dict[str, Any]) -> None:
    drawn, K = Quadratics.draw(8), settings["tokens"]
    problem = Quadratics(drawn.A + np.eye(DIMENSION), drawn.b, drawn.noise)
    lr = (1 + K / 8) / float(np.linalg.eigvalsh(problem.A).min())
    algorithm = method("token-exchange", "ring-8", lr, visits=30, rho=1 / (2 + lr * problem.smoothness), **settings)
    run = simulate(algorithm, graph("ring-8"), problem.answers(), start(problem), 60)
    states = cast(list[ExchangeState], [*run.states.values()])
    kept = sum(state.dual + lr * state.gradient - (1 + K / 8) * state.x for state in states)
    kept = kept + sum(token.x for token in tokens_of(run))
    np.testing.assert_allclose(kept.numpy(), 0, atol=1e-11)
    np.testing.assert_allclose(run.final, np.repeat(problem.optimum[None], 8, 0), rtol=0, atol=1e-4)


def test_exchanges_that_would_leave_out_nodes_are_refused() -> None:
    """On a ring of 8 the walk is at an even node at every second visit: a gap of 2 never came to the others."""
    with pytest.raises(ConfigError, match="gap is 2, and this walk on ring comes back to a node at even hops only"):
        method("token-exchange", "ring-8", gap=2)
    method("token-exchange", "ring-9", gap=2)
    method("token-exchange", "social-32", gap=2)
    with pytest.raises(ConfigError, match="gap is 3, and kernel non-backtracking"):
        method("token-exchange", "ring-9", gap=3, kernel="non-backtracking")


def seen(step: Step, node: int, hops: list[tuple[int, int]], visited: list[int]) -> Step:
    """The same step, with a note of the token's hops and of the gradients."""

    def watch() -> Generator[Effect[Any], Any, Tensor]:
        answer: object = None
        while True:
            try:
                asked = step.send(answer)
            except StopIteration as done:
                return cast(Tensor, done.value)
            if isinstance(asked, Send) and len(asked.payload) == len(asked.kinds[TOKEN]):
                hops.append((node, asked.to))
            if isinstance(asked, Gradient):
                visited.append(node)
            answer = yield asked

    return cast(Step, watch())


@pytest.mark.parametrize("kernel", ["simple", "metropolis", "non-backtracking", "srrw", "hdt"])
def test_hops_are_on_edges_tokens_are_conserved_and_all_bytes_are_counted(kernel: str) -> None:
    topology, problem, rounds, K = graph("social-32"), Quadratics.draw(32), 4, 3
    alpha = {"alpha": 4.0} if kernel in ("srrw", "hdt") else {}
    algorithm = method("mcgd", tokens=K, visits=9, kernel=kernel, **alpha)
    peers = {
        node: Peer(node, 32, lambda turn, node=node: topology.row(node), LAYOUTS["one block"]) for node in range(32)
    }
    states = {node: algorithm.init(torch.from_numpy(start(problem)[0].copy()), peers[node]) for node in peers}
    driver, hops, visited = LockstepDriver(problem.answers()), list[tuple[int, int]](), list[int]()
    for round in range(rounds):
        for peer in peers.values():
            peer.round = round
        steps = {n: seen(algorithm.step(states[n], peers[n]), n, hops, visited) for n in peers}
        losses = driver.advance(steps, round)
        assert len({float(loss) for loss in losses.values()}) == 1
        held = [token for state in states.values() for token in state.held.values()]
        assert sorted(token.number for token in held) == list(range(K))
        assert {token.visit for token in held} == {9 * (round + 1)}
    assert {tuple(sorted(hop)) for hop in hops} <= set(topology.edges)
    paths = walked(algorithm, 9 * rounds + 1)
    assert sorted(visited) == sorted(paths[:, :-1].ravel().tolist())
    assert len(hops) == (paths[:, 1:] != paths[:, :-1]).sum()
    counts = 32 * 8 if alpha else 0
    token_bytes, notice_bytes = 64 + DIMENSION * 8 + counts + 5 * 8 + 8, 64 + 3 * 8 + 8
    notices = rounds * K * 2 * len(topology.edges)
    assert sum(driver.bytes_sent.values()) == len(hops) * token_bytes + notices * notice_bytes


def test_a_round_returns_the_loss_of_its_visits() -> None:
    problem = Quadratics.draw(8)
    topology, algorithm, losses = graph("ring-8"), method("mcgd", "ring-8", visits=10), []

    def watched(gradient: Any) -> Any:
        def at(x: Tensor) -> Any:
            answer = gradient(x)
            losses.append(float(answer.loss))
            return answer

        return at

    peers = peers_of(topology)
    states = {n: algorithm.init(torch.from_numpy(problem.starts()[0].copy()), peers[n]) for n in range(8)}
    driver = LockstepDriver([watched(answer) for answer in problem.answers()])
    returned = driver.advance({n: algorithm.step(states[n], peers[n]) for n in range(8)}, 0)
    assert len(losses) == 10
    assert [float(loss) for loss in returned.values()] == pytest.approx([sum(losses) / 10] * 8, rel=1e-12)


EVERYONE = [("mcgd", {"tokens": 3, "visits": 2, "step_by": "adam"}), ("sa-srrw", {"visits": 3}), ("walkman", {})]
EVERYONE += [("token-gossip", {"tokens": 2}), ("mcgd", {"tokens": 4, "meeting": "average"})]
EVERYONE += [("sa-srrw", {"counts_at": "nodes", "visits": 2}), ("token-exchange", {"tokens": 3})]


@pytest.mark.parametrize(("name", "settings"), EVERYONE)
def test_no_answer_is_kept_beyond_its_step(name: str, settings: dict[str, Any]) -> None:
    problem = Quadratics.draw(8, noisy_rounds=9)
    clean, poisoned = (
        simulate(
            method(name, "ring-8", **settings), graph("ring-8"), problem.answers(), start(problem), 9, poison=poison
        )
        for poison in (False, True)
    )
    assert all(same(clean.states[node], poisoned.states[node]) for node in clean.states)
    assert np.isfinite(clean.models).all()


def assert_it_goes_on(algorithm: TokenMethod, rounds: int, at: int, poison: bool = False) -> None:
    """A run on ring-8 that is stopped and goes on from its packed States ends in those of one that never was."""
    problem, peers = Quadratics.draw(8), peers_of(graph("ring-8"))

    def begun() -> dict[int, Any]:
        return {n: algorithm.init(torch.from_numpy(problem.starts()[0].copy()), peers[n]) for n in range(8)}

    def advance(states: dict[int, Any], rounds: range) -> None:
        driver = LockstepDriver(problem.answers(), poison=poison)
        for round in rounds:
            for peer in peers.values():
                peer.round = round
            driver.advance({n: algorithm.step(states[n], peers[n]) for n in range(8)}, round)

    whole, half, resumed = begun(), begun(), begun()
    advance(whole, range(rounds))
    advance(half, range(at))
    for node, state in half.items():
        tree, tensors = pack(state, "state")
        unpack(tree, {key: tensor.clone() for key, tensor in tensors.items()}, resumed[node])
    advance(resumed, range(at, rounds))
    assert all(same(whole[node], resumed[node]) for node in whole)


@pytest.mark.parametrize(("name", "settings"), EVERYONE)
def test_a_run_goes_on_from_what_a_checkpoint_holds(name: str, settings: dict[str, Any]) -> None:
    assert_it_goes_on(method(name, "ring-8", **settings), rounds=12, at=5)


def test_one_node_alone_is_sgd() -> None:
    problem = Quadratics.draw(1, noisy_rounds=10)
    algorithm = TOKEN_METHODS["mcgd"](local=sgd(LR), visits=5).on(alone(1))
    run = simulate(algorithm, alone(1), problem.answers(), problem.starts(), 4)
    expected = oracle.mcgd(problem.starts()[0], [0] * 20, gradients(problem), LR)
    np.testing.assert_allclose(run.final[0], expected, rtol=0, atol=1e-12)


def test_a_damaged_token_is_refused() -> None:
    algorithm = method("mcgd", "ring-8")
    token = Token(2, 7, 0, 1, 0.0, [torch.ones(DIMENSION)], None)
    payload = token.payload()
    payload[0][3] += 1e-6
    with pytest.raises(DecentralError, match="token 2 came damaged from node 1 to node 4 at visit 7"):
        Token.arrived(Letter(1, TOKEN, payload), 4, algorithm.walk.remembers)


def on_a_rank(world: World, algorithm: TokenMethod, on: str, rounds: int, epoch: int = 1) -> Run:
    """The same rounds of the node of one rank, over its links."""
    topology, problem = graph(on), Quadratics.draw(graph(on).nodes, noisy_rounds=9)
    driver = world.driver(topology, problem.gradient(world.rank), run=7, epoch=epoch)
    try:
        return play(algorithm, driver, topology, torch.from_numpy(start(problem)), rounds)
    finally:
        driver.close()


REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "one token": ("mcgd", {"visits": 15}),
    "counts": ("sa-srrw", {"visits": 5, "step_by": "adam"}),
    "one visit": ("walkman", {"visits": 1}),
    "many tokens on few nodes": ("mcgd", {"tokens": 9}),
    "meeting": ("mcgd", {"tokens": 3, "meeting": "average", "kernel": "simple"}),
    "gossip": ("token-gossip", {"tokens": 2}),
    "exchange": ("token-exchange", {"tokens": 3}),
}
ROUNDS = 6


def in_lockstep(algorithm: TokenMethod) -> Run:
    problem = Quadratics.draw(4, noisy_rounds=9)
    return simulate(algorithm, graph("path-4"), problem.answers(), start(problem), ROUNDS)


@pytest.mark.parametrize("wire", ["gloo", "shared-memory"])
@pytest.mark.parametrize(("name", "settings"), REAL.values(), ids=REAL)
def test_real_ranks_give_the_same_bits(name: str, settings: dict[str, Any], wire: str) -> None:
    algorithm = method(name, "path-4", **settings)
    simulated = in_lockstep(algorithm)
    runs = on_ranks(4, lambda world: on_a_rank(world, algorithm, "path-4", ROUNDS), wire=wire)
    for rank, run in enumerate(runs):
        assert same(run.states[rank], simulated.states[rank])
        assert run.bytes_sent == {rank: simulated.bytes_sent[rank]}


@pytest.mark.parametrize("wire", ["gloo", "shared-memory"])
def test_tokens_that_cross_one_edge_and_walk_on_their_own_time_make_the_same_visits(wire: str) -> None:
    """Two nodes and eight tokens, each of which crosses at every visit: a send that waited for the other end's receive
    would stop both. Who is first at a node is a matter of timing there, but not who visits it."""
    algorithm, rounds = method("mcgd", "path-2", kernel="simple", tokens=8, visits=25), 3
    runs = on_ranks(2, lambda world: on_a_rank(world, algorithm, "path-2", rounds), wire=wire)
    paths = walked(algorithm, 76)
    for rank, run in enumerate(runs):
        assert sorted(run.states[rank].held) == np.flatnonzero(paths[:, -1] == rank).tolist()
        assert all(token.visit == 75 and bool(token.x.isfinite().all()) for token in run.states[rank].held.values())


def test_links_that_carry_no_letters_are_refused() -> None:
    algorithm = method("mcgd", "path-2")

    def work(world: World) -> str:
        with pytest.raises(MissingEnvironmentError) as caught:
            on_a_rank(world, algorithm, "path-2", 1)
        return str(caught.value)

    for told in on_ranks(2, work, wire="colored"):
        assert "which carries no letters of a token method; use transport: gloo, or " in told
        assert "route: seeded" in told
