"""Runs of token methods in lockstep whose nodes die, and what is left of them."""

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import networkx as nx
import torch
from torch import Tensor

from decentral.algorithms import TOKEN_METHODS
from decentral.algorithms.custody import account, settle
from decentral.algorithms.token import Token
from decentral.algorithms.tokens import TokenMethod
from decentral.peer import Effect, LossAndGradient, Peer
from decentral.topology.topology import Topology
from decentral.transport.driver import GradientAt, Step
from decentral.transport.lockstep import LockstepDriver
from tests.contract.problems import DIMENSION, LAYOUTS
from tests.contract.runs import peer_at, sgd

LAYOUT = LAYOUTS["one block"]


def static(graph: nx.Graph) -> Topology:
    return Topology.static("drawn", graph, "metropolis")


def surviving(topology: Topology, name: str = "mcgd", **settings: Any) -> TokenMethod:
    return replace(TOKEN_METHODS[name](local=sgd(0.1), **settings).on(topology), survive=True)


def begun(algorithm: TokenMethod, topology: Topology) -> tuple[dict[int, Peer], dict[int, Any]]:
    """Each node's peer and State."""
    peers = {node: peer_at(topology, node, LAYOUT) for node in range(topology.nodes)}
    return peers, {node: algorithm.init(torch.zeros(DIMENSION), peer) for node, peer in peers.items()}


@dataclass(frozen=True)
class Left:
    """What is left of a run.

    Attributes:
        states: of the living, after the last round and `settle`.
        losses: of each round, by node.
        visits: made by the living and the dead.
        asked: how many effects each node had asked for before each round, and after the last.
        bytes_sent: by node.
    """

    states: dict[int, Any]
    losses: list[dict[int, float]]
    visits: int
    asked: list[Counter[int]]
    bytes_sent: dict[int, int]

    @property
    def tokens(self) -> list[Token]:
        """That live."""
        held = (token for state in self.states.values() for token in state.held.values())
        return sorted(held, key=lambda token: token.number)


def played_on(algorithm: TokenMethod, topology: Topology, rounds: int, deaths: Mapping[int, int] | None = None) -> Left:
    """A run in which nodes die, each at one of its effects, counted from 0 over all rounds.

    Raises:
        DeadlockError: a node waits for ever.
        LostNeighborError: the run cannot go on.
    """
    visits: Counter[int] = Counter()
    neighbors = {node: topology.neighbors(node) for node in range(topology.nodes)}
    answers = [gradient(node, visits) for node in neighbors]
    driver = LockstepDriver(answers, poison=True, deaths=deaths, neighbors=neighbors)
    peers, states = begun(algorithm, topology)
    losses, asked = [], [Counter[int]()]
    for round in range(rounds):
        asked.append(asked[-1].copy())
        for peer in peers.values():
            peer.round = round
        alive = [node for node in peers if node not in driver.dead]
        steps = {node: _counted(algorithm.step(states[node], peers[node]), node, asked[-1]) for node in alive}
        losses.append({node: float(loss) for node, loss in driver.advance(steps, round).items()})
    living = {node: state for node, state in states.items() if node not in driver.dead}
    if algorithm.survive:
        settle_all(living, peers)
    return Left(living, losses, visits.total(), asked, driver.bytes_sent)


def settle_all(living: Mapping[int, Any], peers: Mapping[int, Peer]) -> None:
    """As all do together at the end of a run."""
    accounts = {node: account(state.held, state.custody) for node, state in living.items()}
    for node, state in living.items():
        settle(state.held, state.custody, accounts, peers[node])


def played_in_turn(
    algorithm: TokenMethod, topology: Topology, rounds: int, deaths: Mapping[int, tuple[int, int]]
) -> Left:
    """The same where each node dies in a round, at one of its effects in it; if it asks for so many."""
    due: dict[int, int] = {}
    for node, (round, at) in sorted(deaths.items(), key=lambda death: death[1]):
        due[node] = played_on(algorithm, topology, round, due).asked[-1][node] + at
    return played_on(algorithm, topology, rounds, due)


def gradient(node: int, visits: Counter[int]) -> GradientAt:
    """Towards a node's own number, with a count of the visits."""

    def answer(x: Tensor) -> LossAndGradient:
        visits[node] += 1
        return LossAndGradient(((x - node) ** 2).sum() / 2, x - node)

    return answer


def _counted(step: Step, node: int, asked: Counter[int]) -> Step:
    """The same step, with a count of its effects."""

    def watch() -> Generator[Effect[Any], Any, Tensor]:
        answer: object = None
        while True:
            try:
                effect = step.send(answer)
            except StopIteration as done:
                return cast(Tensor, done.value)
            asked[node] += 1
            answer = yield effect

    return cast(Step, watch())
