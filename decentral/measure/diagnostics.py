"""What the nodes' data and models have in common, and what not: measured between rounds, off the training clock.

With g_i the gradient of node i's loss at the averaged model xbar, on a fixed sample of the node's training data, and
g their mean over the n nodes:

    heterogeneity        zeta^2 = 1/n sum_i ||g_i - g||^2
    gradient diversity   1/n sum_i ||g_i||^2 / ||g||^2: 1 where all nodes pull the same way (Yin et al. 2018,
                         arXiv:1706.05699, up to the factor 1/n)

A sample of m out of N makes zeta^2 larger than over all samples, by up to the gradients' variance over m.

    edge bound           1/(2n) sum_ij w_ij ||x_i - x_j||^2 >= (1 - l_2) 1/n sum_i ||x_i - xbar||^2 for symmetric W:
                         what neighbors differ by bounds the consensus distance, which itself is measured exactly.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median, pstdev

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from decentral.measure.comparison import NodeSpread
from decentral.seeding import stream
from decentral.topology.analysis import averaged, spectrum
from decentral.topology.topology import Topology
from decentral.training.objective import Loss
from decentral.training.task import Task

SAMPLE = 256
"""Training samples of a node that its gradient is taken on, the same in every round; all where it has fewer."""


def sampled(task: Task, node: int) -> tuple[Tensor, Tensor]:
    """The fixed sample of a node's training data as the node sees it: inputs and targets, on the task's device."""
    count = len(task.shards[node])
    chosen = None
    if count > SAMPLE:
        drawn = stream(task.seed, node, "diagnostics").permutation(count)[:SAMPLE]
        chosen = torch.from_numpy(drawn).sort().values
    inputs, targets = task.samples(node, chosen)
    return inputs.to(task.device), targets.to(task.device)


def gradient_of(module: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
    """The flat gradient `(d,)` of the mean loss on some samples, in evaluation mode; the module stays as it is."""
    was_training = module.training
    module.eval()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # cuDNN's recurrent layers have no gradient in evaluation mode.
    with torch.backends.cudnn.flags(enabled=False) if inputs.is_cuda else nullcontext():
        found = torch.autograd.grad(loss(module(inputs), targets), parameters, materialize_grads=True)
    module.train(was_training)
    return parameters_to_vector(found)


def square(x: Tensor) -> float:
    """||x||^2, summed in float64."""
    return float(x.double().square().sum())


def diversity(heterogeneity: float, mean_square: float) -> float | None:
    """Gradient diversity from zeta^2 and ||g||^2; None where g is zero."""
    return (heterogeneity + mean_square) / mean_square if mean_square > 0 else None


def spread(accuracies: Sequence[float]) -> NodeSpread:
    """What the nodes' own accuracies range over."""
    return NodeSpread(
        min=min(accuracies), median=median(accuracies), max=max(accuracies), std=pstdev(accuracies, fmean(accuracies))
    )


@dataclass(frozen=True)
class Edges:
    """The weights of a graph's edges, the mean over a schedule's turns."""

    rows: Sequence[Mapping[int, float]]
    contracted: float  # 1 - l_2

    def difference(self, node: int, other: int, x: Tensor, theirs: Tensor) -> float:
        """`w_ij ||x_i - x_j||^2` of two nodes' models `(d,)`."""
        weight = self.rows[node].get(other, 0.0) if node != other else 0.0
        return weight * square(x - theirs) if weight else 0.0

    def bound(self, sums: Sequence[float]) -> float:
        """The largest consensus distance that is possible where node i's differences have the sum `sums[i]`."""
        return sqrt(sum(sums) / (2 * len(sums)) / self.contracted)


def edges_of(topology: Topology | None) -> Edges | None:
    """Those of a graph of nodes; None without one, or where its matrix is not symmetric and so bounds nothing."""
    if topology is None or topology.schedule.kind != "symmetric" or topology.nodes == 1:
        return None
    matrix, _ = averaged(topology)
    return Edges([matrix.row(node).weights for node in range(matrix.n)], 1 - spectrum(matrix).second)
