"""CHOCO-SGD: gossip over public copies of the models, which compressed differences keep up to date.

With W the mixing matrix, eta the learning rate, g_i(.) node i's minibatch gradient, C a contractive compressor, gamma
the consensus step, and h_i, s_i the public copy and the sum of copies of `public_copy`:

    adapt-then-combine        y_i = x_i - eta g_i(x_i);  q_i = C(y_i - h_i);  x_i+ = y_i + gamma (s_i+ - h_i+)
    adapt-while-communicate   q_i = C(x_i - h_i);        x_i+ = x_i - eta g_i(x_i) + gamma (s_i+ - h_i+)

in both with h_i+ = h_i + q_i and s_i+ = s_i + sum_j w_ij q_j. Without compression and with gamma = 1 they are D-SGD in
the order of the same name. `- eta g` stands for the step of whichever local optimizer is chosen.

The second sends what it knows before the gradient, which hides it. It is the recursion of the later paper, whose round
ends where the gradient is taken: its messages and numbers are the same. That paper starts with h = 0, this one's code
with h = x^0; all nodes begin with one model, so no message is needed to know it.

With `every = tau` the rounds k with (k + 1) mod tau = 0 mix, and the others are local steps alone.

gamma must be small where C leaves out much: on a ring of 9, top-1 % converges with .04 and diverges with .16.

References: Koloskova, Stich and Jaggi 2019 (arXiv:1902.00340), Algorithm 2, for adapt-then-combine; Koloskova, Lin,
Stich and Jaggi 2020 (arXiv:1907.09356), Algorithm 1, for adapt-while-communicate.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.public_copy import EdgeCopies, PublicCopy, contractive, settled
from decentral.compression import Named, Space, compressor_of
from decentral.peer import Peer
from decentral.topology.stochastic import Kind

ChocoOrder = Literal["adapt-then-combine", "adapt-while-communicate"]


@dataclass(slots=True)
class ChocoState(State):
    copies: PublicCopy | EdgeCopies


@dataclass(frozen=True, kw_only=True)
class Choco(Algorithm):
    mixing: ClassVar[Kind] = "symmetric"

    compression: Named
    consensus_step: float | Literal["auto"] = "auto"  # gamma, which is known before `init`
    order: ChocoOrder = "adapt-then-combine"
    every: int = 1  # tau
    start: Literal["model", "zero"] = "model"  # of the copies

    @property
    def starts_alike(self) -> bool:
        return self.start == "model"

    def init(self, x: Tensor, peer: Peer) -> ChocoState:
        compressor = contractive(self.compression, x, peer)
        kind = PublicCopy if peer.static else EdgeCopies
        first = x if self.start == "model" else torch.zeros_like(x)
        return ChocoState(x=x, local=self.local.bind(x, peer.layout), copies=kind.of(first, compressor, peer))

    async def step(self, state: ChocoState, peer: Peer) -> Tensor:
        if (peer.round + 1) % self.every:
            return await self._local_step(state, peer)
        turn = peer.round // self.every
        compressor = compressor_of(self.compression, Space.of(state.x, peer.layout))
        like = (state.copies.packed,)
        if self.order == "adapt-then-combine":
            loss = await self._local_step(state, peer)
            messages = state.copies.messages(state.x, compressor, peer, turn)
            received = await peer.exchange_each(messages, turn, like=like)
        else:
            messages = state.copies.messages(state.x, compressor, peer, turn)
            ticket = await peer.post_each(messages, turn, like=like)
            loss = await self._local_step(state, peer)
            received = await peer.collect(ticket)
        state.copies.receive(received, compressor, peer)
        state.copies.pull_(state.x, settled(self.consensus_step), peer, turn)
        return loss

    async def _local_step(self, state: ChocoState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        return loss
