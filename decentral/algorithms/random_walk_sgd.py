"""Random-walk SGD, also Markov chain gradient descent (MCGD): the model walks, and each visit is one step.

With i_t the node of visit t = 0, 1, ..., g_i its minibatch gradient at x and eta the learning rate:

    x+ = x - eta (t + 2)^-q g_{i_t}(x)

`- g` stands for one of the steps of `token_steps`, whose memory walks with the model. The walk visits node i a share
mu_i of the time, so it is sum_i mu_i f_i that is minimized: uniform with the kernel `metropolis`, weighed by degrees
with `simple`. It converges for 1/2 < q < 1; q = 0 goes on at the learning rate of the round.

    q   decay        i_t   drawn by `kernel`; see `topology.walks`

Reference: Sun, Sun and Yin 2018 (arXiv:1809.04216).
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from decentral.algorithms.token_steps import MEMORIES, StepName, TokenStep
from decentral.algorithms.tokens import Token, TokenMethod
from decentral.peer import Peer


@dataclass(frozen=True, kw_only=True)
class RandomWalkSGD(TokenMethod):
    decay: float = 0.0  # q
    step_by: StepName = "sgd"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    @property
    def _vectors(self) -> int:
        return 1 + MEMORIES[self.step_by]

    async def visit(self, state: Any, token: Token, peer: Peer) -> Tensor:
        model, *memory = token.vectors
        x = state.x.copy_(model)
        loss, gradient = await peer.gradient(x)
        number = token.visit + 1
        rate = state.local.lr * (number + 1) ** -self.decay
        step = TokenStep(self.step_by, self.beta1, self.beta2, self.epsilon)
        step.take(x, state.local.decay_(gradient), memory, rate, number)
        model.copy_(x)
        return loss
