"""Run an algorithm for some rounds under any driver, and keep what the contract speaks of."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.local import BoundOptimizer, LocalOptimizer
from decentral.peer import Effect, Exchange, Gather, Layout, LossAndGradient, Mix, Payload, Peer, Post
from decentral.topology.topology import Topology
from decentral.transport.driver import Driver, GradientAt, Step
from decentral.transport.lockstep import LockstepDriver
from tests.contract.oracle import Matrix
from tests.contract.problems import LAYOUTS

Shapes = tuple[tuple[tuple[int, ...], torch.dtype], ...]


@dataclass(frozen=True)
class Run:
    """What a driver's nodes did.

    Attributes:
        states: of each hosted node, after the last round.
        models: (rounds + 1, hosted nodes, d) float64, before the first round and after each.
        posted: of each round, the shapes and dtypes of each payload that a node posted, by node.
        bytes_sent: by node.
    """

    states: dict[int, State]
    models: NDArray[np.float64]
    posted: list[dict[int, list[Shapes]]]
    bytes_sent: dict[int, int]

    @property
    def final(self) -> Matrix:
        return np.asarray(self.models[-1])


def play(
    algorithm: Algorithm, driver: Driver, topology: Topology, starts: Tensor, rounds: int, layout: Layout | None = None
) -> Run:
    """Run the driver's nodes, node i from row i of `starts: (n, d)`."""
    cut = LAYOUTS["one block"] if layout is None else layout
    peers = {node: peer_at(topology, node, cut) for node in driver.hosted}
    states = {node: algorithm.init(starts[node].clone(), peers[node]) for node in driver.hosted}
    vectors = [state.x for state in states.values()]  # as the training loop does, which holds them for the whole run
    models, posted = [_stacked(vectors)], []
    for round in range(rounds):
        seen: dict[int, list[Shapes]] = {node: [] for node in driver.hosted}
        for peer in peers.values():
            peer.round = round
            states[peer.node].local.begin_round(round)
        dead = driver.dead if isinstance(driver, LockstepDriver) else set()
        living = [node for node in driver.hosted if node not in dead]
        steps = {node: watched(algorithm.step(states[node], peers[node]), seen[node]) for node in living}
        driver.advance(steps, round)
        models.append(_stacked(vectors))
        posted.append(seen)
    return Run(states, np.stack(models), posted, dict(driver.bytes_sent))


def peer_at(topology: Topology, node: int, layout: Layout) -> Peer:
    """What an algorithm may know at a node, as a run makes it."""
    static = topology.schedule.period == 1
    return Peer(node, topology.nodes, partial(topology.row, node), layout, static=static)


def simulate(
    algorithm: Algorithm,
    topology: Topology,
    gradients: Sequence[GradientAt],
    starts: Matrix | Tensor,
    rounds: int,
    *,
    layout: Layout | None = None,
    poison: bool = False,
) -> Run:
    """`play` all nodes in lockstep."""
    return play(algorithm, LockstepDriver(gradients, poison), topology, torch.as_tensor(starts), rounds, layout)


def sgd(lr: float, *, drop: int | None = None, **options: Any) -> LocalOptimizer:
    """torch's SGD; from round `drop` on, if given, with a tenth of lr."""
    factor = None if drop is None else lambda round: 1.0 if round < drop else 0.1
    return LocalOptimizer(torch.optim.SGD, {"lr": lr, **options}, factor)


def watched(step: Step, posted: list[Shapes]) -> Step:
    """The same step, with a note of each payload's shapes and dtypes."""

    def watch() -> Generator[Effect[Any], Any, Tensor]:
        answer: object = None
        while True:
            try:
                asked = step.send(answer)
            except StopIteration as done:
                return cast(Tensor, done.value)
            if isinstance(asked, Post | Exchange | Mix | Gather):
                payload = _payload(asked)
                posted.append(tuple((tuple(tensor.shape), tensor.dtype) for tensor in payload))
            answer = yield asked

    return cast(Step, watch())


def _payload(asked: Post | Exchange | Mix | Gather) -> Payload:
    if isinstance(asked, Gather):
        return asked.payload
    return (asked.x,) if isinstance(asked, Mix) else asked.messages.like


@dataclass(frozen=True)
class Recorder:
    """A node's gradients, with copies of the points where they were asked for and of the answers."""

    gradient: GradientAt
    points: list[Tensor]
    answers: list[Tensor]

    @classmethod
    def of(cls, gradient: GradientAt) -> "Recorder":
        return cls(gradient, [], [])

    def __call__(self, at: Tensor) -> LossAndGradient:
        self.points.append(at.clone())
        answer = self.gradient(at)
        self.answers.append(answer.gradient.clone())
        return answer


def kept(value: object, name: str = "state") -> dict[str, Any]:
    """All that a State carries from round to round, by name: tensors and numbers, the local optimizer's among them."""
    if isinstance(value, BoundOptimizer):
        return kept(value.optimizer.state_dict()["state"], name)
    if is_dataclass(value):
        return _merged({f"{name}.{field.name}": getattr(value, field.name) for field in fields(value)})
    if isinstance(value, dict):
        return _merged({f"{name}.{key}": item for key, item in value.items()})
    if isinstance(value, list | tuple):
        return _merged({f"{name}.{index}": item for index, item in enumerate(value)})
    return {name: value}


def same(one: State, other: State, tolerance: float | None = None) -> bool:
    """Whether two States carry the same: bit for bit, or within a tolerance, relative above 1 and absolute below.

    Packed messages have no tolerance: what they are decoded to has.
    """
    first, second = kept(one), kept(other)
    return first.keys() == second.keys() and all(_equal(first[name], second[name], tolerance) for name in first)


def _equal(one: object, other: object, tolerance: float | None) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return one == other
    if tolerance is None:
        return one.dtype == other.dtype and torch.equal(one, other)
    return one.dtype == torch.uint8 or torch.allclose(one, other, rtol=tolerance, atol=tolerance)


def _merged(parts: dict[str, object]) -> dict[str, Any]:
    return {key: leaf for name, part in parts.items() for key, leaf in kept(part, name).items()}


def _stacked(vectors: list[Tensor]) -> Matrix:
    return torch.stack(vectors).double().numpy()
