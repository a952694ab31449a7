"""How noisy gradients are at the start, and so from how many nodes or which delay on more of either stops to pay.

With g a gradient on one sample of one node, drawn at random, and f the mean of the nodes' losses:

    1 + M = E ||g||^2 / ||grad f||^2

With b samples in a step the noise is M/b of the mean gradient. While b < M twice as many samples halve the steps that
are needed; beyond, steps are limited by the curvature, and more samples buy nothing. The same holds of delays: up to
about M/b steps of b samples a delay hides behind the noise, and costs nothing in order of magnitude. On least squares,
f = 1/2 E (a^T x - y)^2 with exact labels, M is at most max ||a||^2 / L - 1 against the steepest direction.

It is an estimate, good to its order of magnitude: M is measured at one point, and noise gains weight as training goes
on, so that more samples pay later than do at the start.

Reference: Stich, Mohtashami and Jaggi 2021 (arXiv:2103.02351): critical batch and critical delay, of the same order.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from decentral.measure.diagnostics import gradient_of, square
from decentral.seeding import stream
from decentral.training.task import Task

PROBED = 256
"""Samples whose gradients are taken one by one; all where there are no more."""


@dataclass(frozen=True)
class Noise:
    """What a probe found.

    Attributes:
        samples: how many gradients.
        ratio: M; None where the mean gradient is lost in the noise of so many.
    """

    samples: int
    ratio: float | None

    def critical(self, batch_size: float) -> float | None:
        """Nodes with such a batch each, or steps of delay, from which on the speed-up saturates; at least 1."""
        return None if self.ratio is None else max(self.ratio / batch_size, 1.0)


def probe(task: Task) -> Noise:
    """Take gradients at the common start, of samples that are dealt to nodes as in training."""
    module, held = task.module(), [len(shard) for shard in task.shards]
    is_all = sum(held) <= PROBED and len({*held}) == 1
    if is_all:
        chosen = [(node, place) for node, count in enumerate(held) for place in range(count)]
    else:
        random = stream(task.seed, -1, "noise")
        nodes = random.integers(len(held), size=PROBED).tolist()
        chosen = [(node, int(random.integers(held[node]))) for node in nodes]
    total, squares = torch.zeros(task.parameters, dtype=torch.float64, device=task.device), 0.0
    for node, place in chosen:
        gradient = gradient_of(module, task.data.loss, *_sample(task, node, place))
        total += gradient
        squares += square(gradient)
    return Noise(len(chosen), _ratio(squares / len(chosen), square(total / len(chosen)), len(chosen), is_all))


def _sample(task: Task, node: int, place: int) -> tuple[Tensor, Tensor]:
    inputs, targets = task.samples(node, torch.tensor([place]))
    return inputs.to(task.device), targets.to(task.device)


def _ratio(mean_square: float, square_of_mean: float, count: int, is_all: bool) -> float | None:
    """M; of a sample, with what its noise adds to the square of its mean taken off."""
    of_mean = square_of_mean if is_all else (count * square_of_mean - mean_square) / (count - 1)
    return mean_square / of_mean - 1 if of_mean > mean_square / count / 4 else None
