"""QG-DAdam: Adam whose two moments are those of the models' change in a round, mixing and all.

With W the mixing matrix, eta the learning rate, t = 1, 2, ... the round and g_i node i's minibatch gradient at x_i with
its weight decay in it, and products, roots and quotients by components:

    m_i  = beta1 mhat_i + (1 - beta1) g_i;    v_i = beta2 vhat_i + (1 - beta2) g_i^2
    x_i+ = sum_j w_ij (x_j - eta / (1 - beta1^t) m_j / (sqrt(v_j / (1 - beta2^t)) + epsilon))
    dhat = (x - x+) / (||x - x+|| + 1e-8)          the norm is of the whole flat model
    mhat+ = beta1 mhat + (1 - beta1) dhat;         vhat+ = beta2 vhat + (1 - beta2) dhat^2

That is variant `paper`. The authors' code has three files that differ from it and from each other:

    sum          g enters m with weight 1 in place of 1 - beta1 (decentralized_qg_adam.py)
    normalized   each output channel's g is divided by its norm first (_v1.py, where columns of matrices pass for them)
    local        m is kept and not replaced by mhat: the first moment is the node's own (_v2.py)

    mhat   state.first        vhat   state.second

Reference: Lin, Karimireddy, Stich and Jaggi 2021 (arXiv:2102.04761), Algorithm 2.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.peer import Layout, Peer

TINY = 1e-8
"""What is added to a norm that is divided by."""

Variant = Literal["paper", "sum", "normalized", "local"]


@dataclass(slots=True)
class AdamState(State):
    first: Tensor  # (d,) mhat; m of variant local
    second: Tensor  # (d,) vhat
    half: Tensor  # (d,) scratch: what is sent, and then x+


@dataclass(frozen=True, kw_only=True)
class QuasiGlobalAdam(Algorithm):
    owns_step: ClassVar[bool] = True

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    variant: Variant = "paper"

    @property
    def bears_gossip(self) -> bool:
        return True

    def init(self, x: Tensor, peer: Peer) -> AdamState:
        local = self.local.bind(x, peer.layout)
        return AdamState(x=x, local=local, first=buffer(x), second=buffer(x), half=buffer(x))

    async def step(self, state: AdamState, peer: Peer) -> Tensor:
        x, beta1, beta2, t = state.x, self.beta1, self.beta2, peer.round + 1
        loss, gradient = await peer.gradient(x)
        if self.variant == "normalized":
            normalize_(gradient, peer.layout)
        g = state.local.decay_(gradient)
        first = state.first.mul_(beta1) if self.variant == "local" else state.first * beta1
        first.add_(g, alpha=1 if self.variant == "sum" else 1 - beta1)
        second = (state.second * beta2).addcmul_(g, g, value=1 - beta2)
        denominator = second.div_(1 - beta2**t).sqrt_().add_(self.epsilon)
        torch.addcdiv(x, first, denominator, value=-state.local.lr / (1 - beta1**t), out=state.half)
        await peer.mix_(state.half)
        change = x.sub_(state.half)
        change.div_(change.norm() + TINY)
        if self.variant != "local":
            state.first.mul_(beta1).add_(change, alpha=1 - beta1)
        state.second.mul_(beta2).addcmul_(change, change, value=1 - beta2)
        x.copy_(state.half)
        return loss


def normalize_(gradient: Tensor, layout: Layout) -> None:
    """Divide each output channel of `gradient: (d,)` by its norm: the rows of a block of two dimensions or more."""
    for block in layout:
        rows = block.of(gradient)
        rows = rows.view(rows.shape[0], -1) if rows.dim() > 1 else rows.view(1, -1)
        rows.div_(rows.norm(dim=1, keepdim=True) + TINY)
