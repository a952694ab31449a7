"""Tokens outlive their holders: whoever dies, whenever, each token number lives once at the end, and at most one visit
is lost for each death."""

import itertools
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Any, cast

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from decentral.algorithms import TOKEN_METHODS
from decentral.algorithms.custody_round import COPY, TESTIMONY
from decentral.algorithms.token import Token
from decentral.algorithms.token_round import NOTICE, TOKEN
from decentral.algorithms.tokens import TokenMethod
from decentral.errors import LostNeighborError
from decentral.peer import GONE, Effect, Gradient, Letter, LossAndGradient, Payload, Receive
from decentral.topology.hops import NOWHERE
from decentral.topology.topology import Topology
from decentral.topology.walks import KERNELS, Surroundings
from decentral.training.packing import pack, unpack
from decentral.transport.driver import Finished, Step, proceed
from decentral.transport.rank import RankDriver
from decentral.transport.world import World
from tests.contract.problems import DIMENSION
from tests.contract.ranks import on_ranks
from tests.contract.runs import same
from tests.contract.survivors import Left, begun, gradient, played_in_turn, played_on, settle_all, static, surviving
from tests.transport.test_rank import surviving as surviving_rank
from tests.transport.test_surviving_letters import die

RING = static(nx.Graph([*nx.cycle_graph(6).edges, (0, 3)]))
KARATE = static(nx.karate_club_graph())
GRAPHS = {"ring with a chord": RING, "complete": static(nx.complete_graph(4)), "karate": KARATE}
CUT = {0, 2, 33}  # whose death leaves nodes of the karate club that cannot be reached; checked below
ROUNDS, VISITS, TOKENS = 3, 3, 3
REPELLED = {"srrw": {"alpha": 2.0}, "hdt": {"alpha": 2.0}}


def method(on: Topology, kernel: str = "metropolis", **settings: Any) -> TokenMethod:
    return surviving(
        on, **{"tokens": TOKENS, "visits": VISITS, "kernel": kernel, **REPELLED.get(kernel, {}), **settings}
    )


def check(left: Left, algorithm: TokenMethod, rounds: int, deaths: int) -> None:
    """What the protocol promises for deaths that come one after the other."""
    assert [token.number for token in left.tokens] == list(range(algorithm.tokens))
    assert {token.visit for token in left.tokens} == {rounds * algorithm.visits}
    assert 0 <= left.visits - sum(token.visit for token in left.tokens) <= deaths
    assert all(bool(token.x.isfinite().all()) for token in left.tokens)


def effects(topology: Topology, algorithm: TokenMethod, node: int) -> int:
    """How many effects a node asks for in a run without deaths."""
    return played_on(algorithm, topology, ROUNDS).asked[-1][node]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", TOKEN_METHODS)
def test_without_a_death_it_is_the_same_run(name: str, kernel: str) -> None:
    if name == "sa-srrw" and kernel not in REPELLED:
        kernel = "srrw"
    chosen = {"kernel": kernel, **REPELLED.get(kernel, {}), "visits": 4, "tokens": 1 if name == "walkman" else 3}
    guarded = surviving(RING, name, **chosen)
    watched, plain = (played_on(each, RING, 3) for each in (guarded, replace(guarded, survive=False)))
    assert watched.visits == plain.visits
    assert watched.losses == plain.losses
    for node, state in plain.states.items():
        assert same(replace(watched.states[node], custody=None), state)
    assert sum(watched.bytes_sent.values()) > sum(plain.bytes_sent.values())


@pytest.mark.parametrize("on", GRAPHS)
def test_the_holder_may_die_at_any_effect(on: str) -> None:
    topology, drawn = GRAPHS[on], random.Random(1)
    kernels = [*KERNELS]
    for number in range(3 if on == "karate" else 12):
        algorithm = method(topology, kernels[number % len(kernels)])
        starts = algorithm.starts(begun(algorithm, topology)[0][0])
        node = drawn.choice([node for node in (*starts, *range(topology.nodes)) if on != "karate" or node not in CUT])
        at = drawn.randrange(effects(topology, algorithm, node))
        check(played_on(algorithm, topology, ROUNDS, {node: at}), algorithm, ROUNDS, 1)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("on", GRAPHS)
def test_the_holder_may_die_at_every_effect(on: str, kernel: str) -> None:
    topology, algorithm = GRAPHS[on], method(GRAPHS[on], kernel)
    starts = algorithm.starts(begun(algorithm, topology)[0][0])
    for node in sorted({*starts} - CUT) if on == "karate" else range(topology.nodes):
        for at in range(0, effects(topology, algorithm, node), 5 if on == "karate" else 1):
            check(played_on(algorithm, topology, ROUNDS, {node: at}), algorithm, ROUNDS, 1)


@st.composite
def settings_of_a_run(draw: st.DrawFn) -> tuple[Topology, TokenMethod, int]:
    nodes = draw(st.integers(4, 7))
    graph = nx.gnp_random_graph(nodes, draw(st.floats(0.4, 0.9)), seed=draw(st.integers(0, 10**6)))
    graph.add_edges_from(nx.cycle_graph(nodes).edges)  # so that it hangs together without any one node
    topology, kernel = static(graph), draw(st.sampled_from([*KERNELS]))
    algorithm = method(topology, kernel, tokens=draw(st.integers(1, 4)), visits=draw(st.integers(1, 5)))
    return topology, algorithm, draw(st.integers(1, 4))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(settings_of_a_run(), st.integers(0, 6), st.integers(0, 150))
def test_one_death_in_any_run(run: tuple[Topology, TokenMethod, int], node: int, at: int) -> None:
    topology, algorithm, rounds = run
    assume(node < topology.nodes)
    check(played_on(algorithm, topology, rounds, {node: at}), algorithm, rounds, 1)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(settings_of_a_run(), st.permutations(range(4)), st.integers(0, 20), st.integers(0, 20))
def test_two_deaths_far_apart(
    run: tuple[Topology, TokenMethod, int], order: list[int], first: int, further: int
) -> None:
    """The second dies two rounds later, when the first one's tokens have long been made anew."""
    topology, algorithm, _ = run
    one, other, *_ = order
    rest = topology.graph.subgraph(set(range(topology.nodes)) - {one, other})
    assume(nx.is_connected(rest))
    deaths = {one: (0, first), other: (2, further)}
    check(played_in_turn(algorithm, topology, 5, deaths), algorithm, 5, 2)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(settings_of_a_run(), st.dictionaries(st.integers(0, 6), st.integers(0, 120), min_size=2, max_size=3))
def test_deaths_at_once_end_in_all_tokens_or_one_clear_error(
    run: tuple[Topology, TokenMethod, int], deaths: dict[int, int]
) -> None:
    topology, algorithm, rounds = run
    assume(max(deaths) < topology.nodes and len(deaths) < topology.nodes)
    with suppress(LostNeighborError):
        left = played_on(algorithm, topology, rounds, deaths)
        assert [token.number for token in left.tokens] == list(range(algorithm.tokens))


def test_a_token_that_rests_gets_another_custodian() -> None:
    """Who sent it dies before it tells anybody of its rest; who has it, before it does anything in the next round."""
    topology, sent = static(nx.complete_graph(4)), 2  # after a gradient, and the token
    algorithm = surviving(topology, kernel="simple", visits=1)
    runs = [played_on(algorithm, topology, rounds) for rounds in range(7)]
    holders = [next(node for node, state in run.states.items() if state.held) for run in runs]
    for round, (sender, holder) in enumerate(itertools.pairwise(holders)):
        left = played_in_turn(algorithm, topology, round + 3, {sender: (round, sent), holder: (round + 1, 0)})
        assert [(token.number, token.visit) for token in left.tokens] == [(0, round + 3)]


@pytest.mark.parametrize("name", [name for name in TOKEN_METHODS if name != "mcgd"])
def test_every_method_survives(name: str) -> None:
    algorithm = surviving(RING, name, visits=VISITS)
    start = algorithm.starts(begun(algorithm, RING)[0][0])[0]
    for at in range(0, 40, 6):
        left = played_on(algorithm, RING, ROUNDS, {start: at})
        assert [(token.number, token.visit) for token in left.tokens] == [(0, ROUNDS * VISITS)]


def test_a_walk_that_stays_loses_one_visit_at_most() -> None:
    """Between two hubs a node of degree 2 is left by every third hop only: the custodian is told of each visit."""
    topology = static(nx.convert_node_labels_to_integers(nx.complete_bipartite_graph(2, 6)))
    algorithm = method(topology, tokens=1, visits=40)
    assert algorithm.chain is not None
    path = algorithm.chain.path(0, 0, 40).tolist()
    stays = [sum(1 for _ in group) for _, group in groupby(path)]
    assert max(stays) > 2
    victim = path[sum(stays[: stays.index(max(stays))])]
    whole = played_on(algorithm, topology, 1)
    for at in range(0, whole.asked[-1][victim], 3):
        check(played_on(algorithm, topology, 1, {victim: at}), algorithm, 1, 1)


def test_all_nodes_but_one_may_die_one_by_one() -> None:
    topology = GRAPHS["complete"]
    algorithm = method(topology)
    deaths = {node: (2 * node, 7) for node in range(3)}
    left = played_in_turn(algorithm, topology, 8, deaths)
    assert list(left.states) == [3]
    check(left, algorithm, 8, 3)


def test_the_death_of_a_cut_vertex_is_one_clear_error() -> None:
    assert set(nx.articulation_points(KARATE.graph)) <= CUT
    with pytest.raises(LostNeighborError) as caught:
        played_on(method(KARATE), KARATE, ROUNDS, {0: 9})
    assert str(caught.value).startswith("without node 0, which died, node 4 cannot be reached from node 1")
    path = static(nx.path_graph(5))
    with pytest.raises(LostNeighborError, match="without node 2, which died, node 3 cannot be reached from node 0"):
        played_on(method(path), path, ROUNDS, {2: 4})


def test_a_token_that_dies_with_its_copy_is_one_clear_error() -> None:
    """Whoever holds the token at the start and its custodian die before either has sent anything."""
    topology = GRAPHS["complete"]
    algorithm = method(topology, tokens=1)
    start = algorithm.starts(begun(algorithm, topology)[0][0])[0]
    custodian = min({*range(4)} - {start})
    with pytest.raises(LostNeighborError) as caught:
        played_on(algorithm, topology, ROUNDS, {start: 0, custodian: 0})
    nodes = ", ".join(map(str, sorted([start, custodian])))
    assert f"token 0 died with nodes {nodes}, and so did its copies" in str(caught.value)


class ByHand:
    """A node of the ring that is driven letter by letter."""

    def __init__(self, node: int) -> None:
        algorithm = method(RING, tokens=1)
        peers, states = begun(algorithm, RING)
        self.state, self.kinds = states[node], algorithm.kinds(states[node].x)
        self.state.held.clear()
        self.visits, self.over = 0, False
        self._step = algorithm.step(self.state, peers[node])
        self._go_on(None)

    def takes(self, sender: int, kind: int, payload: Payload = ()) -> None:
        self._go_on(Letter(sender, kind, payload))

    def _go_on(self, answer: object) -> None:
        while not isinstance(asked := proceed(self._step, answer), Finished | Receive):
            answer = None
            if isinstance(asked, Gradient):
                self.visits += 1
                answer = LossAndGradient(torch.ones(()), torch.ones(DIMENSION))
        self.over = isinstance(asked, Finished)


@pytest.fixture
def by_hand() -> ByHand:
    """Node 4, whose neighbors are 3 and 5; of whom node 0 is none."""
    return ByHand(4)


def token(visit: int, generation: int, kind: int = TOKEN) -> Payload:
    """As a letter."""
    made = Token(0, visit, generation, NOWHERE, 0.0, [torch.full((DIMENSION,), float(generation))], None)
    *carried, loss = made.payload()
    return (*carried, loss.view(1) if kind == COPY else loss)


def notice(visit: int, generation: int, holder: int) -> Payload:
    numbers = torch.tensor([0, visit, generation, holder, holder])
    return numbers, torch.zeros((), dtype=torch.float64)


def test_an_older_generation_is_refused(by_hand: ByHand) -> None:
    by_hand.takes(3, COPY, token(1, 2, COPY))
    by_hand.takes(5, TOKEN, token(1, 1))
    assert (by_hand.visits, by_hand.state.held) == (0, {})
    by_hand.takes(5, COPY, token(2, 1, COPY))
    assert by_hand.state.custody.kept[0].token.generation == 2
    by_hand.takes(5, NOTICE, notice(VISITS, 1, holder=0))
    assert by_hand.state.custody.generations.tolist() == [2]
    by_hand.takes(5, TOKEN, token(VISITS, 2))
    assert by_hand.state.held[0].generation == 2


def test_a_token_that_has_been_replaced_is_given_up(by_hand: ByHand) -> None:
    by_hand.takes(5, TOKEN, token(VISITS, 0))
    assert by_hand.state.held[0].visit == VISITS
    by_hand.takes(3, NOTICE, notice(VISITS, 1, holder=0))
    assert by_hand.state.held == {}
    by_hand.takes(5, NOTICE, notice(VISITS, 0, holder=4))
    assert by_hand.over


def test_a_token_whose_rest_has_been_told_waits_for_the_next_round(by_hand: ByHand) -> None:
    by_hand.takes(3, NOTICE, notice(VISITS, 0, holder=3))
    by_hand.takes(5, TOKEN, token(1, 1))
    assert (by_hand.visits, by_hand.state.held[0].visit) == (0, 1)
    assert not by_hand.over
    by_hand.takes(5, NOTICE, notice(VISITS, 0, holder=3))
    assert by_hand.over


def test_it_does_not_wait_for_the_dead(by_hand: ByHand) -> None:
    by_hand.takes(3, NOTICE, notice(VISITS, 0, holder=0))
    by_hand.takes(5, GONE)
    assert by_hand.over


def test_who_is_taken_for_dead_ends(by_hand: ByHand) -> None:
    with pytest.raises(LostNeighborError, match="node 3 lost node 4, which lives"):
        by_hand.takes(5, TESTIMONY, (torch.tensor([3, 4]), torch.full((2, 1), -1)))


def test_what_a_node_remembers_of_a_death_is_in_its_checkpoint() -> None:
    algorithm = method(RING)
    left = played_on(algorithm, RING, ROUNDS, {2: 20})
    fresh = begun(algorithm, RING)[1]
    assert any(state.custody.testimonies and state.custody.kept for state in left.states.values())
    for node, state in left.states.items():
        tree, tensors = pack(state, "state")
        unpack(tree, {key: tensor.clone() for key, tensor in tensors.items()}, fresh[node])
        assert same(fresh[node], state)


@pytest.mark.parametrize("kernel", KERNELS)
def test_walks_hop_among_the_living(kernel: str) -> None:
    algorithm = method(KARATE, kernel)
    whole = algorithm.around(0)
    dead = [1, 2, 31]
    left = whole.without(dead)
    assert whole.without([9]) is whole, "node 9 is no neighbor"
    counts = np.linspace(1, 2, 34) if kernel in REPELLED else None
    draws = np.linspace(0, 1, 400, endpoint=False)

    def hops(around: Surroundings) -> list[int]:
        return [around.next_node(u, None if counts is None else counts[around.whose]) for u in draws]

    reached = set(hops(left))
    assert not reached & set(dead)
    assert reached - {0} == set(hops(whole)) - {0, *dead}
    if KERNELS[kernel].any_target and kernel != "srrw":  # the other hops are what they were
        assert all(after == before for before, after in zip(hops(whole), hops(left), strict=True) if after != 0)


class Died(Exception):  # noqa: N818  it is no error of anybody's
    """A rank that is a thread has lost its links as a killed process does."""


def dying(step: Step, driver: RankDriver, at: int) -> Step:
    """The same step of a rank that dies at one of its effects."""

    def watch() -> Generator[Effect[Any], Any, Any]:
        answer: object = None
        for _ in range(at):
            try:
                effect = step.send(answer)
            except StopIteration as done:
                return done.value
            answer = yield effect
        die(driver)
        raise Died

    return cast(Step, watch())


@pytest.mark.parametrize("at", [4, 17])
@pytest.mark.parametrize("wire", ["gloo", "shared-memory"])
def test_real_links_that_break_are_survived(wire: str, at: int) -> None:
    topology, rounds, made = GRAPHS["complete"], 4, Counter[int]()
    algorithm = method(topology)
    victim = algorithm.starts(begun(algorithm, topology)[0][0])[0]

    def rank(world: World) -> Any:
        peers, states = begun(algorithm, topology)
        peer, state = peers[world.rank], states[world.rank]
        driver = surviving_rank(world).driver(topology, gradient(world.rank, made), run=7, epoch=1)
        try:
            for peer.round in range(rounds):
                step = algorithm.step(state, peer)
                doomed = world.rank == victim and peer.round == 1
                driver.advance({world.rank: dying(cast(Step, step), driver, at) if doomed else step}, peer.round)
        except Died:
            return None
        finally:
            driver.close()
        return state

    states = on_ranks(4, rank, wire=wire)
    living = {node: state for node, state in enumerate(states) if state is not None}
    assert {*range(4)} - living.keys() == {victim}
    settle_all(living, begun(algorithm, topology)[0])
    check(Left(living, [], made.total(), [], {}), algorithm, rounds, 1)


@pytest.mark.processes
@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_process_that_holds_a_token_is_killed() -> None:
    """In a process of its own, since it forks."""
    chaos = subprocess.run([sys.executable, "-m", "tests.contract.chaos_tokens", "1"], capture_output=True, text=True)
    assert chaos.returncode == 0, chaos.stderr
    assert chaos.stdout.splitlines()[-1] == "1 kills, 1 of a holder: all ended with 3 tokens"
