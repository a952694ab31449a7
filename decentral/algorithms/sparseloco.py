"""SparseLoCo over gossip: many local steps, then an outer step of compressed drifts, whose rest is kept and decays.

With W the mixing matrix, C a contractive compressor, z_i node i's model at its last outer step, x_i what H local steps
make of it, and h_i, s_i the public copy of z_i and the sum of copies of `public_copy`:

    every round     x_i+ = x_i - eta g_i(x_i)
    every H-th      e_i+ = beta e_i + z_i - x_i;   D_i = C(e_i+);   e_i++ = e_i+ - D_i           e = 0 at first
                    q_i = C(z_i - h_i);   h_i+ = h_i + q_i;   s_i+ = s_i + sum_j w_ij q_j       h = z at first
                    z_i+ = z_i - alpha sum_j w_ij D_j + gamma (s_i+ - h_i+);   x_i = z_i+

`- eta g` stands for the step of whichever local optimizer is chosen, AdamW in the paper, whose buffers each node keeps
over an outer step. e is error feedback and takes the place of outer momentum.

The paper has the mean over all nodes in place of the first sum, and so one z for all: h = z = s, and the third term is
0. Over a graph each node hears other D_j, and nothing would bring the models together again: the third term does, by
CHOCO's public copies, for a second message of the same size. With W = J both are the same but for rounding.
Without compression and with gamma = 1 it is z+ = W (z + alpha (x - z)): GASLoC without momentum.

    H   every    alpha   outer_lr    beta   decay    gamma   consensus_step    z   state.anchor    e   state.rest

Reference: Sarfi, Therien, Lidin and Belilovsky 2025 (arXiv:2508.15706), Algorithm 1; for h and s, `choco`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.public_copy import EdgeCopies, PublicCopy, contractive, settled
from decentral.compression import Key, Named, Space, compressor_of
from decentral.peer import Peer
from decentral.topology.stochastic import Kind


@dataclass(slots=True)
class SparseLoCoState(State):
    anchor: Tensor  # (d,) z
    rest: Tensor  # (d,) e
    packed: Tensor  # D_i, the first part of the message
    memory: Tensor | None  # the compressor's, for D
    copies: PublicCopy | EdgeCopies


@dataclass(frozen=True, kw_only=True)
class SparseLoCo(Algorithm):
    mixing: ClassVar[Kind] = "symmetric"

    compression: Named
    every: int = 50  # H
    outer_lr: float = 1.0  # alpha
    decay: float = 0.95  # beta
    consensus_step: float | Literal["auto"] = "auto"  # gamma, which is known before `init`

    def init(self, x: Tensor, peer: Peer) -> SparseLoCoState:
        anchor = buffer(x).copy_(x)
        compressor = contractive(self.compression, anchor, peer)
        kind = PublicCopy if peer.static else EdgeCopies
        return SparseLoCoState(
            x=x,
            local=self.local.bind(x, peer.layout),
            anchor=anchor,
            rest=buffer(x),
            packed=compressor.message(x.device),
            memory=compressor.memory(Key(peer.seed, peer.round, peer.node)),
            copies=kind.of(anchor, compressor, peer),
        )

    async def step(self, state: SparseLoCoState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        if (peer.round + 1) % self.every == 0:
            await self._outer_step(state, peer, peer.round // self.every)
        return loss

    async def _outer_step(self, state: SparseLoCoState, peer: Peer, turn: int) -> None:
        z, key = state.anchor, Key(peer.seed, peer.round, peer.node)
        compressor = compressor_of(self.compression, Space.of(z, peer.layout))
        state.rest.mul_(self.decay).add_(torch.sub(z, state.x))
        compressor.encode_residual(state.rest, state.packed, key, state.memory)
        copied = state.copies.messages(z, compressor, peer, turn)
        joined = {id(payload): (state.packed, *payload) for payload in copied.values()}  # one for all stays one
        payloads = {j: joined[id(payload)] for j, payload in copied.items()}
        received = await peer.exchange_each(payloads, turn, like=(state.packed, state.copies.packed))
        weights = {j: -self.outer_lr * weight for j, weight in peer.row(turn).weights.items()}
        drifts = {peer.node: state.packed} | {j: drift for j, (drift, _) in received.items()}
        compressor.add(z, weights, drifts, key)
        state.copies.receive({j: (copy,) for j, (_, copy) in received.items()}, compressor, peer)
        state.copies.pull_(z, settled(self.consensus_step), peer, turn)
        state.x.copy_(z)
