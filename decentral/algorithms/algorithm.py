"""What every method is: a frozen config with `init` and `step`, and a State that is all that survives a step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from decentral.algorithms.local import Local, LocalSteps
from decentral.peer import Peer
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology


@dataclass(slots=True)
class State:
    """What a node carries from round to round; methods with more to remember extend it."""

    x: Tensor  # (d,) flat parameters; the same tensor for the whole run, updated in place
    local: LocalSteps


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """A method of decentralized (or centralized) optimization, written once for every driver."""

    mixing: ClassVar[Kind] = "doubly-stochastic"
    """What every mixing matrix must be, or more than that."""

    owns_step: ClassVar[bool] = False
    """Whether it takes the local step itself, of the local optimizer only learning rate and weight decay."""

    survives: ClassVar[bool] = False
    """Whether its nodes go on when one of them dies, as `transport.survive` has it."""

    free_running: ClassVar[bool] = False
    """Whether nodes step at their own pace, and have no rounds in common: asynchronous methods."""

    staleness_counts: ClassVar[str | None] = None
    """What `staleness` counts, in words; None for methods that wait."""

    local: Local

    @property
    def uses_weights(self) -> bool:
        """Whether anything depends on the mixing weights, beside who talks to whom."""
        return True

    @property
    def starts_alike(self) -> bool:
        """Whether all nodes must begin with the same model, else what it keeps of neighbors is wrong for ever."""
        return False

    @property
    def bears_gossip(self) -> bool:
        """Whether its State stays right where further gossip moves x between its rounds, as consensus control does."""
        return False

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        """The graph as this method uses it, and what of that the user must be told; empty where it is as given.

        Raises:
            ConfigError: the method does not work on it, although its matrices are what `mixing` says.
        """
        return graph, ""

    def on(self, graph: Topology) -> Self:  # noqa: ARG002  most know no more of it than their peer tells them
        """The method made ready for a graph that suits it.

        Raises:
            ConfigError: its options do not fit the graph.
        """
        return self

    def share(self, state: Any, peer: Peer) -> tuple[Tensor, float] | None:  # noqa: ARG002
        """What a node adds to the averaged model `(d,)`, and its weight; None where that is the mean of all `state.x`.

        The averaged model is the sum of what nodes add over the sum of their weights.
        """
        return None

    def steps_per_round(self, nodes: int) -> int:
        """How many steps all nodes take in a round, together."""
        return nodes

    def notes(self, state: Any) -> dict[str, float]:  # noqa: ARG002
        """What evaluations record of how it went, the same at all nodes; empty for most methods."""
        return {}

    def staleness(self, state: Any) -> list[int]:  # noqa: ARG002
        """How often a node has used something 0, 1, 2, ... steps old; empty for methods that wait."""
        return []

    async def serve(self, state: Any, peer: Peer) -> Tensor:  # noqa: ARG002
        """What a node of a free run does that has made its steps: answer others, for ever; nothing for most methods."""
        return torch.zeros(())

    def go_on(self, state: Any, peer: Peer) -> None:  # noqa: B027  most methods have nothing to do
        """A free run goes on after a cut, where all nodes served and nothing was under way; `peer.round` is the next.

        By then its State may have been in a checkpoint. What neither that holds nor `serve` has looked at is lost.
        """

    def init(self, x: Tensor, peer: Peer) -> State:
        """The state before the first round; `x: (d,)` is the node's own to update in place."""
        return State(x=x, local=self.local.bind(x, peer.layout))

    @abstractmethod
    async def step(self, state: Any, peer: Peer) -> Tensor:
        """One round at one node, on the state that `init` made; returns the minibatch loss `()`.

        It awaits effects of `peer` only.
        """


def buffer(x: Tensor) -> Tensor:
    """Zeros `(d,)` to accumulate in: of the dtype of `x: (d,)`, but float32 where that has fewer bits."""
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
