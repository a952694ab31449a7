"""Runs of token methods in lockstep whose nodes die, and what must hold of whoever is left."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from decentral.algorithms import TOKEN_METHODS
from decentral.algorithms.custody import account, settle
from decentral.algorithms.token import Token
from decentral.algorithms.tokens import TokenMethod
from decentral.peer import LossAndGradient
from decentral.topology.topology import Topology
from decentral.transport.driver import GradientAt
from decentral.transport.lockstep import LockstepDriver
from tests.contract.problems import DIMENSION, LAYOUTS
from tests.contract.runs import peer_at, sgd

LAYOUT = LAYOUTS["one block"]


def static(graph: nx.Graph) -> Topology:
    return Topology.static("drawn", nx.convert_node_labels_to_integers(graph), "metropolis")


def surviving(topology: Topology, name: str = "mcgd", **settings: Any) -> TokenMethod:
    return replace(TOKEN_METHODS[name](local=sgd(0.1), **settings).on(topology), survive=True)


@dataclass
class Counted:
    """Every node's gradient, with a count of the visits."""

    nodes: int
    visits: int = 0

    def answers(self) -> list[GradientAt]:
        def at(node: int) -> GradientAt:
            def answer(x: Tensor) -> LossAndGradient:
                self.visits += 1
                return LossAndGradient(((x - node) ** 2).sum() / 2, x - node)

            return answer

        return [at(node) for node in range(self.nodes)]


@dataclass(frozen=True)
class Left:
    """What is left of a run.

    Attributes:
        states: of the living.
        tokens: that live at its end, of all numbers.
        made: visits, of the living and the dead.
        asked: how many effects each node asked for.
        losses: of each round, by node.
    """

    states: dict[int, Any]
    tokens: list[Token]
    made: int
    asked: dict[int, int]
    losses: list[dict[int, float]]


def play_on(algorithm: TokenMethod, topology: Topology, rounds: int, deaths: Mapping[int, int] | None = None) -> Left:
    """A run in which each node of `deaths` dies at an effect.

    Raises:
        DeadlockError: a node waits for ever.
    """
    nodes, counted = topology.nodes, Counted(topology.nodes)
    neighbors = {node: topology.neighbors(node) for node in range(nodes)}
    driver = LockstepDriver(counted.answers(), poison=True, deaths=deaths, neighbors=neighbors)
    peers = {node: peer_at(topology, node, LAYOUT) for node in range(nodes)}
    states = {node: algorithm.init(torch.zeros(DIMENSION), peer) for node, peer in peers.items()}
    losses = []
    for round in range(rounds):
        for peer in peers.values():
            peer.round = round
        alive = [node for node in peers if node not in driver.dead]
        returned = driver.advance({node: algorithm.step(states[node], peers[node]) for node in alive}, round)
        losses.append({node: float(loss) for node, loss in returned.items()})
    living = {node: state for node, state in states.items() if node not in driver.dead}
    if algorithm.survive:
        accounts = {node: account(state.held, state.custody) for node, state in living.items()}
        for node, state in living.items():
            settle(state.held, state.custody, accounts, peers[node])
    tokens = [token for state in living.values() for token in state.held.values()]
    return Left(living, sorted(tokens, key=lambda token: token.number), counted.visits, {}, losses)
