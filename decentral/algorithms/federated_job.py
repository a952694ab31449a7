"""Jobs of several local steps, as federated methods give them out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from decentral.algorithms.hub import Hub, HubState
from decentral.peer import Peer


@dataclass(frozen=True, kw_only=True)
class FederatedJob(Hub):
    """A hub whose nodes take local steps, by the local optimizer, whose buffers each keeps to itself.

    Args:
        every: tau, local steps of each job.
    """

    every: int = 1

    async def work(self, state: HubState, peer: Peer) -> tuple[Tensor, Tensor | None]:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(self.toward(gradient, state))
        return loss, self.result(state) if state.done + 1 == self.every else None

    def toward(self, gradient: Tensor, state: HubState) -> Tensor:  # noqa: ARG002
        """What a local step goes along, `(d,)`, of a gradient that may be overwritten."""
        return gradient

    def result(self, state: HubState) -> Tensor:
        """What a node sends back: how far it has come from where the job began."""
        return torch.sub(state.x, state.start)
