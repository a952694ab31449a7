"""Random-walk SGD, also Markov chain gradient descent (MCGD): the model walks, and each visit is one step.

With i_t the node of visit t = 0, 1, ..., g_i its minibatch gradient at x and eta the learning rate:

    x+ = x - eta (t + 2)^-q g_{i_t}(x)

`- g` stands for one of the steps of `token_steps`, whose memory walks with the model. The walk visits node i a share
mu_i of the time, so it is sum_i mu_i f_i that is minimized: uniform with the kernel `metropolis`, weighed by degrees
with `simple`. It converges for 1/2 < q < 1; q = 0 goes on at the learning rate of the round.

Several tokens may keep their number by themselves: they fork where fewer than about 2 `fork_below` seem to live, and
drop where more than 2 `drop_above` do (`topology.population`). `loss` loses them with this probability at each visit,
to see what comes of it.

    q   decay        i_t   drawn by `kernel`; see `topology.walks`

Reference: Sun, Sun and Yin 2018 (arXiv:1809.04216).
"""

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from decentral.algorithms.regulated_round import RegulatedRound
from decentral.algorithms.token import Token
from decentral.algorithms.token_round import Crowd, Round, TokenState, letters
from decentral.algorithms.token_steps import MEMORIES, StepName, TokenStep
from decentral.algorithms.tokens import TokenMethod
from decentral.errors import ConfigError
from decentral.peer import Payload, Peer
from decentral.topology.hops import Floats
from decentral.topology.population import Regulation, Sightings
from decentral.topology.topology import Topology


@dataclass(frozen=True, kw_only=True)
class RandomWalkSGD(TokenMethod):
    decay: float = 0.0  # q
    step_by: StepName = "sgd"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    fork_below: float | None = None
    drop_above: float | None = None
    loss: float = 0.0

    @property
    def changing(self) -> bool:
        return self.fork_below is not None or self.loss > 0

    @property
    def regulation(self) -> Regulation | None:
        """By what tokens fork and drop at the start of a round, with the chance that they have in all its visits."""
        if self.fork_below is None:
            return None
        return Regulation(self.fork_below, self.drop_above, self.tokens, self.visits)

    @property
    def shares(self) -> Floats:
        """`(n,)` of each node of all visits."""
        assert self.chain is not None, "a token method is made ready for a graph by `on`"
        return self.chain.target

    def on(self, graph: Topology) -> Self:
        if self.drop_above is not None and self.fork_below is None:
            raise ConfigError(f"found drop_above: {self.drop_above:g} alone; give fork_below too, or all drop in time")
        _ = self.regulation  # its bounds
        return super().on(graph)

    def init(self, x: Tensor, peer: Peer) -> TokenState:
        state = super().init(x, peer)
        if self.changing:
            first = range(self.tokens)
            state.crowd = Crowd([*first], self.tokens, 0.0, Sightings(dict.fromkeys(first, 0)))
            for token in state.held.values():
                token.forked = False
        return state

    @property
    def performed(self) -> type[Round]:
        return RegulatedRound if self.changing else super().performed

    def kinds(self, x: Tensor) -> tuple[Payload, ...]:
        return letters(self.travelling(x), forks=True) if self.changing else super().kinds(x)

    @property
    def vectors(self) -> int:
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
