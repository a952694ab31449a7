"""Gossip through tokens: each node trains a model of its own, and walking models pull them together.

In a round, with x_i node i's model, z_k token k's, g_i the gradient at x_i and p the pull:

    every node            x_i <- x_i - eta g_i(x_i)
    a visit of k to i     d = x_i - z_k;   x_i <- x_i - p d;   z_k <- z_k + p d

`- eta g` stands for the step of whichever local optimizer is chosen. A visit keeps the sum of all nodes' and tokens'
models, so that only steps move it; with p = 1/2 both leave with their mean. Nobody but visited nodes sends anything.

    p   pull

Reference: in the manner of Hendrikx 2022, "A principled framework for the design and analysis of token algorithms",
where tokens are vertices without data of a graph between them and the nodes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from decentral.algorithms.token import Token
from decentral.algorithms.token_round import TokenState
from decentral.algorithms.tokens import TokenMethod
from decentral.peer import Peer


@dataclass(frozen=True, kw_only=True)
class TokenGossip(TokenMethod):
    owns_step: ClassVar[bool] = False
    model_walks: ClassVar[bool] = False

    pull: float = 0.5  # p

    def share(self, state: TokenState, peer: Peer) -> None:  # noqa: ARG002  nodes' own models are what is trained
        return None

    async def step(self, state: Any, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        await super().step(state, peer)
        return loss

    async def visit(self, state: Any, token: Token, peer: Peer) -> Tensor:  # noqa: ARG002
        drift = (state.x - token.x).mul_(self.pull)
        state.x.sub_(drift)
        token.x.add_(drift)
        return torch.zeros(())

    def look(self, state: TokenState) -> None:
        """A node's model is its own."""
