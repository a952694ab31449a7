"""Walkman: ADMM by a walking token, exact with heterogeneous data at a constant rate.

At node i, with the token's x, the node's y_i and z_i, alpha the learning rate, n nodes and f_i the node's loss:

    gradient    y+ = x + z - alpha grad f_i(y)
    proximal    y+ = argmin_y f_i(y) + 1/(2 alpha) |y - (x + z)|^2
    z+ = z + x - y+
    x+ = x + [(y+ - z+) - (y - z)] / n

Duals are scaled, beta = 1 / alpha. Before the first visit y_i = x and z_i = 0, so that x = mean_i (y_i - z_i), which
every visit keeps. It converges linearly where the f_i are strongly convex and alpha is small: 1 / alpha above 2 L + 2.
What a node's visit adds to x is the change of its y_i - z_i, which a second token would miss: there is one.

Of a node that dies in a run that survives it, the last y_i - z_i stays in x.

The proximal y+ is approached by `inner_steps` steps, each with the next minibatch and s = `inner_lr`, from y = y_i:

    y <- (y / s + (x + z) / alpha - grad f_i(y)) / (1 / s + 1 / alpha)

    x   token.x        y_i   state.y        z_i   state.z

Reference: Mao, Yuan, Hu, Gu, Sayed and Yin 2020 (arXiv:1804.06568).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from decentral.algorithms.token import Token
from decentral.algorithms.token_round import TokenState
from decentral.algorithms.tokens import TokenMethod
from decentral.errors import ConfigError
from decentral.peer import Peer


@dataclass(slots=True)
class WalkmanState(TokenState):
    y: Tensor  # (d,) the node's own model
    z: Tensor  # (d,) its scaled dual


@dataclass(frozen=True, kw_only=True)
class Walkman(TokenMethod):
    kernel: str = "simple"
    variant: Literal["gradient", "proximal"] = "gradient"
    inner_steps: int = 10
    inner_lr: float = 0.1

    def __post_init__(self) -> None:
        if self.tokens != 1:
            raise ConfigError(f"Walkman's nodes keep what one token has left, found tokens: {self.tokens}; take 1")

    def init(self, x: Tensor, peer: Peer) -> WalkmanState:
        return WalkmanState(**self.opened(x, peer), y=x.clone(), z=torch.zeros_like(x))

    async def visit(self, state: Any, token: Token, peer: Peer) -> Tensor:
        x, y, z = token.x, state.y, state.z
        before = y - z
        if self.variant == "gradient":
            loss, gradient = await self._gradient(state, y, peer)
            torch.add(x, z, out=y).sub_(gradient, alpha=state.local.lr)
        else:
            loss = await self._approach(state, x + z, y, peer)
        z.add_(x).sub_(y)
        x.add_((y - z).sub_(before), alpha=1 / peer.nodes)
        state.x.copy_(x)
        return loss

    async def _gradient(self, state: WalkmanState, at: Tensor, peer: Peer) -> tuple[Tensor, Tensor]:
        """The loss at a point, and the gradient with its weight decay."""
        loss, gradient = await peer.gradient(state.x.copy_(at))
        return loss, state.local.decay_(gradient)

    async def _approach(self, state: WalkmanState, center: Tensor, y: Tensor, peer: Peer) -> Tensor:
        """Step towards the proximal point of `center: (d,)`, in place on y; the loss where that began."""
        alpha, s, losses = state.local.lr, self.inner_lr, []
        for _ in range(self.inner_steps):
            loss, gradient = await self._gradient(state, y, peer)
            losses.append(loss)
            y.div_(s).add_(center, alpha=1 / alpha).sub_(gradient).div_(1 / s + 1 / alpha)
        return losses[0]
