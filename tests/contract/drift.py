"""How far corrections leave what they must keep, in 10,000 noisy rounds: `python -m tests.contract.drift`. Minutes."""

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.d2 import D2
from decentral.algorithms.exact_diffusion import ExactDiffusion
from decentral.algorithms.gradient_tracking import GradientTracking
from decentral.algorithms.momentum_tracking import MomentumTracking
from decentral.peer import LossAndGradient
from decentral.topology.topology import Topology
from decentral.transport.driver import GradientAt
from tests.contract.problems import DIMENSION, Quadratics, graph
from tests.contract.runs import sgd, simulate

BUFFERED: dict[str, Algorithm] = {
    "mixed": GradientTracking(local=sgd(0.05)),
    "atc": GradientTracking(local=sgd(0.05), order="adapt-then-combine"),
    "awc": GradientTracking(local=sgd(0.05), order="adapt-while-communicate"),
    "momentum": MomentumTracking(local=sgd(0.05), momentum=0.5),
    "d2": D2(local=sgd(0.05)),
    "exact diffusion": ExactDiffusion(local=sgd(0.05)),
}


def drift(algorithm: Algorithm, topology: Topology, rounds: int, dtype: torch.dtype) -> float:
    """How far the mean of all nodes' corrections is from 0, as a share of their size, after some noisy rounds.

    Args:
        dtype: of the parameters; the corrections are float64, what is sent float32.
    """
    problem, noise = Quadratics.draw(topology.nodes), torch.Generator().manual_seed(0)

    def noisy(gradient: GradientAt) -> GradientAt:
        def at(x: Tensor) -> LossAndGradient:
            loss, answer = gradient(x.float())
            return LossAndGradient(loss, (answer + torch.randn(DIMENSION, generator=noise)).to(dtype))

        return at

    starts = torch.from_numpy(problem.starts()[:1]).to(dtype).expand(topology.nodes, -1)
    gradients = [noisy(gradient) for gradient in problem.answers(torch.float32)]
    run = simulate(algorithm, algorithm.suited(topology)[0], gradients, starts, rounds)
    states = list(run.states.values())
    kept = [state.correction for state in states]  # type: ignore[attr-defined]
    assert {(state.x.dtype, correction.dtype) for state, correction in zip(states, kept, strict=True)} == {
        (dtype, torch.float64)
    }
    corrections = torch.stack(kept)
    return float(corrections.mean(dim=0).norm() / corrections.norm(dim=1).mean())


def main() -> None:
    torch.set_num_threads(1)
    for name, algorithm in BUFFERED.items():
        for dtype in (torch.bfloat16, torch.float32):
            found = drift(algorithm, graph("ring-8"), 10_000, dtype)
            print(f"{name:16} {dtype!s:16} {found:.1e}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
