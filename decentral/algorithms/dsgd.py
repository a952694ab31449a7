"""Decentralized (gossip) SGD in its three orders, with local steps.

With W the mixing matrix, eta the learning rate and g_i(.) node i's minibatch gradient:

    adapt-then-combine        x_i+ = sum_j w_ij (x_j - eta g_j(x_j))
    combine-then-adapt        z_i = sum_j w_ij x_j;   x_i+ = z_i - eta g_i(z_i)
    adapt-while-communicate   x_i+ = sum_j w_ij x_j - eta g_i(x_i)

The first is ATC diffusion, the second CTA, the third D-PSGD. `- eta g` stands for the step of whichever local optimizer
is chosen: torch.optim.SGD with momentum makes it DSGDm, with nesterov DSGDm-N, and torch.optim.Adam or AdamW
decentralized Adam, each node with buffers of its own. With `every = tau` the rounds k with (k + 1) mod tau = 0 mix and
the others have W = I (cooperative SGD). With a compressor C a mixing is x_i + sum_j w_ij (C(x_j) - C(x_i)).

References: Lian et al. 2017 (arXiv:1705.09056), Algorithm 1, for adapt-while-communicate; Cattivelli and Sayed 2010
(IEEE TSP 58(3)) for the other two; Wang and Joshi 2018 (arXiv:1808.07576), section 3, for local steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.compression import COMPRESSORS
from decentral.peer import Payload, Peer

Order = Literal["adapt-then-combine", "combine-then-adapt", "adapt-while-communicate"]


@dataclass(slots=True)
class DSGDState(State):
    drift: Tensor | None  # (d,) scratch of adapt-while-communicate: what mixing changes, until the step is taken
    message: Tensor | None  # what is sent, where it is compressed


@dataclass(frozen=True, kw_only=True)
class DSGD(Algorithm):
    order: Order = "adapt-then-combine"
    every: int = 1  # tau
    compression: str = "none"  # or one of COMPRESSORS

    def init(self, x: Tensor, peer: Peer) -> DSGDState:
        compressor = COMPRESSORS.get(self.compression)
        overlaps = self.order == "adapt-while-communicate" and compressor is None
        return DSGDState(
            x=x,
            local=self.local.bind(x, peer.layout),
            drift=torch.empty_like(x) if overlaps else None,
            message=compressor.message(x) if compressor else None,
        )

    async def step(self, state: DSGDState, peer: Peer) -> Tensor:
        if (peer.round + 1) % self.every:
            return await self._local_step(state, peer)
        # A schedule advances with each mixing, not with each round: tau may share a factor with its period.
        turn = peer.round // self.every
        if self.order == "adapt-then-combine":
            loss = await self._local_step(state, peer)
            await self._mix(state, peer, turn)
            return loss
        if self.order == "combine-then-adapt":
            await self._mix(state, peer, turn)
            return await self._local_step(state, peer)
        return await self._adapt_while_communicating(state, peer, turn)

    async def _local_step(self, state: DSGDState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        return loss

    async def _mix(self, state: DSGDState, peer: Peer, turn: int) -> None:
        if state.message is None:
            await peer.mix_(state.x, turn)
            return
        COMPRESSORS[self.compression].encode(state.x, state.message)
        self._add_differences(state, peer, await peer.exchange((state.message,), turn), turn)

    def _add_differences(self, state: DSGDState, peer: Peer, received: Mapping[int, Payload], turn: int) -> None:
        """x_i += sum_j w_ij (C(x_j) - C(x_i)): what C rounds off stays at its node, so the mean of all is kept."""
        assert state.message is not None
        weights = dict(peer.row(turn).weights)
        weights[peer.node] -= 1
        messages = {peer.node: state.message} | {sender: payload[0] for sender, payload in received.items()}
        COMPRESSORS[self.compression].add_(state.x, weights, messages)

    async def _adapt_while_communicating(self, state: DSGDState, peer: Peer, turn: int) -> Tensor:
        if state.message is not None:
            message = COMPRESSORS[self.compression].encode(state.x, state.message)
            ticket = await peer.post((message,), turn)
            loss = await self._local_step(state, peer)
            self._add_differences(state, peer, await peer.collect(ticket), turn)
            return loss
        assert state.drift is not None
        ticket = await peer.post((state.x,), turn)
        loss, gradient = await peer.gradient(state.x)
        peer.drift(state.x, await peer.collect(ticket), turn, out=state.drift)
        # The step is taken at x_i, where the gradient was, and not at the mixed point: weight decay depends on it.
        state.local.step(gradient)
        state.x.add_(state.drift)
        return loss
