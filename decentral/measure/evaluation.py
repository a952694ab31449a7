"""Evaluate the nodes' models and their average between rounds: for measurement only, outside the training path."""

import math
from collections.abc import Callable, Mapping
from time import perf_counter

import torch
from torch import Tensor, nn

from decentral.measure.comparison import Evaluation
from decentral.training.data import Data
from decentral.training.objective import Objective
from decentral.training.task import Task
from decentral.transport.driver import Driver

EVALUATION_BATCH = 1024
SLOWER = 10
"""How many times longer than here an evaluation may take on another node before it counts as lost."""

Observe = Callable[[Evaluation], None]
"""Receives each evaluation, in the process that hosts node 0."""


class Evaluator:
    """Measures a run's nodes together; the driver's `mean` and `gather` bring them together.

    Args:
        task: whose test samples are used.
        driver: that hosts the nodes.
        modules: the hosted nodes' modules, whose buffers (running statistics) their models are evaluated with.
        observe: is called with each evaluation where node 0 is hosted.
    """

    def __init__(self, task: Task, driver: Driver, modules: Mapping[int, nn.Module], observe: Observe) -> None:
        self._data = task.data.tested_on(task.device)
        self._driver, self._modules, self._observe = driver, modules, observe
        self._probe = Objective(task.module(), task.data.loss, task.batches(driver.hosted[0]))

    def __call__(self, round: int, seconds: float, models: Mapping[int, Tensor], losses: Mapping[int, Tensor]) -> None:
        """Evaluate the hosted models `(d,)` after `round` rounds and `seconds` of training."""
        average = self._driver.mean(models)
        began = perf_counter()
        own = {node: self._node(node, x, average, seconds, losses.get(node)) for node, x in models.items()}
        patience_s = SLOWER * (perf_counter() - began)
        nodes = self._driver.gather(own, patience_s)
        if 0 in models:
            self._observe(self._evaluation(round, average, nodes))
        self._driver.gather({node: [0.0] for node in models}, patience_s)  # all go on together

    def _node(self, node: int, x: Tensor, average: Tensor, seconds: float, loss: Tensor | None) -> list[float]:
        test_loss, accuracy = score(self._module_at(x, node), self._data)
        distance2 = float((x - average).double().square().sum())
        training_loss = loss.item() if loss is not None else torch.nan
        sent = self._driver.bytes_sent[node]
        return [test_loss, accuracy, distance2, training_loss, seconds, float(sent)]

    def _evaluation(self, round: int, average: Tensor, nodes: list[list[float]]) -> Evaluation:
        test_losses, accuracies, distances2, losses, seconds, sent = (
            list(column) for column in zip(*nodes, strict=True)
        )
        test_loss, accuracy = score(self._module_at(average, node=0), self._data)
        classes = self._data.classes is not None
        return Evaluation(
            round=round,
            seconds=max(seconds),
            loss=finite(sum(losses) / len(losses)),
            test_loss=finite(test_loss),
            accuracy=accuracy if classes else None,
            node_accuracy=accuracies if classes else None,
            node_test_loss=[finite(value) for value in test_losses],
            consensus_distance=finite((sum(distances2) / len(distances2)) ** 0.5),
            distance_to_optimum=self._distance_to_optimum(average),
            bytes_sent=[int(count) for count in sent],
        )

    def _module_at(self, x: Tensor, node: int) -> nn.Module:
        """A module with the parameters `x: (d,)` and a node's buffers; the average is evaluated with node 0's."""
        probe = self._probe.module_at(x)
        for own, trained in zip(probe.buffers(), self._modules[node].buffers(), strict=True):
            own.copy_(trained)
        return probe

    def _distance_to_optimum(self, average: Tensor) -> float | None:
        optimum = self._data.optimum
        if optimum is None or optimum.shape != average.shape:
            return None
        return finite(float((average - optimum).double().norm()))


@torch.no_grad()
def score(module: nn.Module, data: Data) -> tuple[float, float]:
    """Mean loss on the test samples, and accuracy (NaN where there are no classes); in evaluation mode."""
    was_training = module.training
    module.eval()
    total, right = 0.0, 0
    batches = zip(data.test_inputs.split(EVALUATION_BATCH), data.test_targets.split(EVALUATION_BATCH), strict=True)  # type: ignore[no-untyped-call]
    for inputs, targets in batches:
        outputs = module(inputs)
        total += data.loss(outputs, targets).item() * len(inputs)
        if data.classes is not None:
            right += int((outputs.argmax(-1) == targets).sum())
    module.train(was_training)
    count = len(data.test_inputs)
    return total / count, right / count if data.classes is not None else torch.nan


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
