"""What every method is: a frozen config with `init` and `step`, and a State that is all that survives a step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from decentral.algorithms.local import Local, LocalSteps
from decentral.peer import Peer
from decentral.topology.stochastic import Kind


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

    local: Local

    def init(self, x: Tensor, peer: Peer) -> State:
        """The state before the first round; `x: (d,)` is the node's own to update in place."""
        return State(x=x, local=self.local.bind(x, peer.layout))

    @abstractmethod
    async def step(self, state: Any, peer: Peer) -> Tensor:
        """One round at one node, on the state that `init` made; returns the minibatch loss `()`.

        It awaits effects of `peer` only.
        """
