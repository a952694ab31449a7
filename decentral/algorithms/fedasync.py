"""FedAsync: the hub mixes each model that comes back into its own, the less the later it comes.

With x the hub's model, y what a node made by tau local steps of the model x' that it was sent, s the number of changes
of x since then (`hub`), eta the learning rate and g(.) the node's minibatch gradient:

    at a node     y <- y - eta (g(y) + rho (y - x'))    tau times, from y = x'
    at the hub    x+ = (1 - a_s) x + a_s y,    a_s = a w(s)

    constant      w(s) = 1
    polynomial    w(s) = (1 + s)^-p
    hinge         w(s) = 1 where s <= b, else 1 / (1 + c (s - b))

`- eta (...)` stands for the step of whichever local optimizer is chosen, along the gradient of f(y) + rho/2 |y - x'|^2.
Where nodes hold different data, w turns the model to those of fast nodes.

    a   mix    p   exponent    b   hinge_after    c   hinge_slope    rho   proximal    tau   every    x'   state.start

Reference: Xie, Koyejo and Gupta 2019 (arXiv:1903.03934), Algorithm 1.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from decentral.algorithms.federated_job import FederatedJob
from decentral.algorithms.hub import HubState, Result
from decentral.peer import Peer


@dataclass(frozen=True, kw_only=True)
class FedAsync(FederatedJob):
    mix: float = 0.6  # a
    weigh: Literal["constant", "polynomial", "hinge"] = "polynomial"
    exponent: float = 0.5  # p
    hinge_after: int = 4  # b
    hinge_slope: float = 10.0  # c
    proximal: float = 0.0  # rho

    def favors_fast(self) -> str:
        return super().favors_fast() or (f"weigh: {self.weigh}" if self.weigh != "constant" else "")

    def toward(self, gradient: Tensor, state: HubState) -> Tensor:
        return gradient.add_(state.x - state.start, alpha=self.proximal) if self.proximal else gradient

    def result(self, state: HubState) -> Tensor:
        return state.x

    def change(self, state: HubState, results: list[Result], peer: Peer) -> None:  # noqa: ARG002
        [result] = results
        delay = result.delay(state)
        state.used(delay)
        state.x.lerp_(result.vector, self.mix * self.weight(delay))
        state.changes += 1

    def weight(self, delay: int) -> float:
        """w(s)."""
        if self.weigh == "polynomial":
            return float((1 + delay) ** -self.exponent)
        if self.weigh == "hinge":
            return 1 / (1 + self.hinge_slope * max(delay - self.hinge_after, 0))
        return 1.0
