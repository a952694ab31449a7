"""FedAsync: the hub mixes each model that comes back into its own, the less the later it comes.

With x the hub's model, y what a node made by tau local steps of the model that it was sent, s the number of changes of
x since then (`hub`):

    x+ = (1 - a_s) x + a_s y,    a_s = a w(s)

    constant      w(s) = 1
    polynomial    w(s) = (1 + s)^-p
    hinge         w(s) = 1 where s <= b, else 1 / (1 + c (s - b))

The paper's proximal term on the local steps is left out. Where nodes hold different data, w turns the model to those of
fast nodes.

    a   mix    p   exponent    b   hinge_after    c   hinge_slope    tau   every

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

    def favors_fast(self) -> str:
        return super().favors_fast() or (f"weigh: {self.weigh}" if self.weigh != "constant" else "")

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
