"""Directed schedules, and methods that need them or that tell each neighbor something else: for the tests alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.loading import example_with
from decentral.peer import Payload, Peer
from decentral.topology.assembly import Family, topology_of
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology
from decentral.transport.world import World
from tests.contract.oracle import Matrix
from tests.contract.problems import Quadratics
from tests.contract.runs import Run, play, sgd, simulate

ROUNDS = 9


def halves(nodes: int, step: int) -> nx.DiGraph:
    """i sends half of what it has to i + step."""
    turn = nx.DiGraph()
    turn.add_weighted_edges_from((i, (i + step) % nodes, 0.5) for i in range(nodes))
    return turn


def drawn(nodes: int, turn: int) -> nx.DiGraph:
    """Half of each node goes where a random permutation says; whoever is left in place keeps all."""
    order = np.random.default_rng((7, turn)).permutation(nodes)
    graph = nx.empty_graph(nodes, create_using=nx.DiGraph)
    graph.add_weighted_edges_from((i, int(j), 0.5) for i, j in enumerate(order) if i != j)
    return graph


def one_peer(nodes: int) -> Family:
    """i sends to i + 2^k and receives from i - 2^k."""
    return Family([halves(nodes, 2**k) for k in range((nodes - 1).bit_length())], "one-peer")


def lopsided(nodes: int) -> nx.DiGraph:
    """A directed cycle, and node 0 sends to everybody: degrees out and in differ."""
    graph = nx.cycle_graph(nodes, create_using=nx.DiGraph)
    graph.add_edges_from((0, j) for j in range(1, nodes))
    return graph


DOUBLY: dict[str, tuple[int, Callable[[], Family]]] = {
    "cycle-4": (4, lambda: Family([halves(4, 1)], "cycle")),
    "cycle-5": (5, lambda: Family([halves(5, 1)], "cycle")),
    "one-peer-4": (4, partial(one_peer, 4)),
    "one-peer-6": (6, partial(one_peer, 6)),
    "drawn-4": (4, lambda: Family([nx.complete_graph(4)], "drawn", partial(drawn, 4))),
    "drawn-5": (5, lambda: Family([nx.complete_graph(5)], "drawn", partial(drawn, 5))),
}
"""Doubly stochastic and not symmetric, by number of nodes."""

COLUMN: dict[str, tuple[int, Callable[[], Family]]] = {
    "lopsided-4": (4, lambda: Family([lopsided(4)], "lopsided")),
    "lopsided-5": (5, lambda: Family([lopsided(5)], "lopsided")),
    "one-way-4": (4, lambda: Family([nx.DiGraph([(0, 1), (2, 3)]), nx.DiGraph([(1, 2), (3, 0)])], "one-way")),
}
"""Column-stochastic only; in each turn of one-way a node sends and does not receive, or the other way round."""


@cache
def directed(name: str) -> Topology:
    """One of DOUBLY or COLUMN."""
    nodes, family = (DOUBLY | COLUMN)[name]
    section = example_with(topology={"name": name, "weights": "given" if name in DOUBLY else "column-stochastic"})
    return topology_of(family(), section.topology, nodes)


@dataclass(slots=True)
class MassState(State):
    mass: Tensor  # () what my share of the sum is divided by


@dataclass(frozen=True, kw_only=True)
class Push(Algorithm):
    """x+ = A x and w+ = A w from w = 1: gossip of sums, whose ratios x / w tend to the mean. Gradients are not used."""

    mixing: ClassVar[Kind] = "column-stochastic"

    overlaps: bool = False

    def init(self, x: Tensor, peer: Peer) -> MassState:
        return MassState(x, self.local.bind(x, peer.layout), x.new_ones(()))

    async def step(self, state: MassState, peer: Peer) -> Tensor:
        payload = state.x, state.mass
        if self.overlaps:
            ticket = await peer.post(payload)
            loss, _ = await peer.gradient(state.x)
            received = await peer.collect(ticket)
        else:
            loss, received = state.x.new_zeros(()), await peer.exchange(payload)
        masses = {sender: (came[1].reshape(1),) for sender, came in received.items()}
        state.mass = peer.combine(state.mass.reshape(1), masses).reshape(())
        state.x.copy_(peer.combine(state.x, received))
        return loss


@dataclass(frozen=True, kw_only=True)
class Addressed(Algorithm):
    """Node i tells node j the number 10 i + j, and puts what it hears where x has the sender's place."""

    mixing: ClassVar[Kind] = "column-stochastic"

    overlaps: bool = False

    async def step(self, state: State, peer: Peer) -> Tensor:
        payloads: Mapping[int, Payload] = {
            j: (state.x.new_full((3,), 10 * peer.node + j), torch.tensor(peer.round)) for j in peer.row().to
        }
        like = state.x.new_empty(3), torch.tensor(0)
        if self.overlaps:
            received = await peer.collect(await peer.post_each(payloads, like=like))
        else:
            received = await peer.exchange_each(payloads, like=like)
        for sender, (numbers, round) in received.items():
            state.x[sender] = numbers.mean() + 100 * round
        return state.x.new_zeros(())


def starts(topology: Topology, dtype: torch.dtype) -> Tensor:
    """A start of its own for every node."""
    return torch.from_numpy(Quadratics.draw(topology.nodes).starts()).to(dtype)


def in_lockstep(algorithm: Algorithm, topology: Topology, dtype: torch.dtype = torch.float32) -> Run:
    """Some rounds of all nodes."""
    problem = Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS)
    return simulate(algorithm, topology, problem.answers(dtype), starts(topology, dtype), ROUNDS)


def on_a_rank(
    world: World, algorithm: Algorithm, topology: Topology, dtype: torch.dtype = torch.float32, epoch: int = 1
) -> Run:
    """The same rounds of the node of one rank, over its links, which end when it has done its part."""
    problem = Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS)
    largest = 64 + 13 * 8 + 8
    driver = world.driver(topology, problem.gradient(world.rank, dtype), run=7, epoch=epoch, largest=largest)
    try:
        return play(algorithm, driver, topology, starts(topology, dtype), ROUNDS)
    finally:
        driver.close()


def matrices(topology: Topology) -> list[Matrix]:
    """W of each round, (n, n)."""
    return [topology.schedule.matrix(turn).dense() for turn in range(ROUNDS)]


def plain(**options: Any) -> dict[str, Any]:
    """The options of an algorithm, SGD among them."""
    return {"local": sgd(0.05, momentum=0.9), **options}
