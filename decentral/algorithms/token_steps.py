"""The steps that a walking model can take, on what its token carries: the optimizer's memory walks with it.

With g the gradient at the model x, its weight decay in it, r the rate of the step and n = 1, 2, ... its number:

    sgd          x -= r g
    heavy-ball   m = beta1 m + g;                                                x -= r m
    adam         m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;    x -= r m^ / (sqrt(v^) + epsilon)

m^ and v^ are divided by 1 - beta^n. All are 0 before the first step.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

StepName = Literal["sgd", "heavy-ball", "adam"]

MEMORIES: dict[StepName, int] = {"sgd": 0, "heavy-ball": 1, "adam": 2}
"""How many vectors each carries beside the model."""


@dataclass(frozen=True)
class TokenStep:
    """One way to step.

    Args:
        name: of MEMORIES.
        beta1, beta2, epsilon: as above.
    """

    name: StepName
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def take(self, x: Tensor, gradient: Tensor, memory: list[Tensor], rate: float, number: int) -> None:
        """Step `number` = 1, 2, ... in place on `x` and `memory`; all are `(d,)`."""
        match self.name:
            case "sgd":
                x.add_(gradient, alpha=-rate)
            case "heavy-ball":
                (m,) = memory
                x.add_(m.mul_(self.beta1).add_(gradient), alpha=-rate)
            case "adam":
                m, v = memory
                m.mul_(self.beta1).add_(gradient, alpha=1 - self.beta1)
                v.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
                scale = (v / (1 - self.beta2**number)).sqrt_().add_(self.epsilon)
                x.addcdiv_(m, scale, value=-rate / (1 - self.beta1**number))
