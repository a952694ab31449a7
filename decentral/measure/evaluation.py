"""Evaluate the nodes' models and their average between rounds: for measurement only, outside the training path."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from decentral.measure.comparison import Control, Evaluation, FreeRun, RestingToken
from decentral.measure.diagnostics import diversity, edges_of, gradient_of, sampled, spread, square
from decentral.topology.topology import Topology
from decentral.training.albums import FreeSteps
from decentral.training.data import Data
from decentral.training.objective import Objective
from decentral.training.task import Task
from decentral.transport.driver import Driver

T = TypeVar("T")

EVALUATION_BATCH = 1024
SLOWER = 10
"""How many times longer than here an evaluation may take on another node before it counts as lost."""

Observe = Callable[[Evaluation], None]
"""Receives each evaluation, in the process that hosts the first living node: node 0 unless it has died.

The same one twice where whoever received it died of something before the others knew that it had it.
"""


class Score(NamedTuple):
    """What a model came to on the test samples."""

    loss: float
    accuracy: float  # NaN where there are no classes
    predictions: Tensor  # of each target, as one list; empty where there are no classes


class Evaluator:
    """Measures a run's nodes together; the driver's `mean` and `gather` bring them together.

    Args:
        task: whose test samples are used.
        driver: that hosts the nodes.
        modules: the hosted nodes' modules, whose buffers (running statistics) their models are evaluated with.
        observe: is called with each evaluation where the first living node is hosted.
        diagnostics: what is measured besides, of `config.Experiment.diagnostics`.
        topology: the graph whose edges `edges` means.
    """

    def __init__(
        self,
        task: Task,
        driver: Driver,
        modules: Mapping[int, nn.Module],
        observe: Observe,
        diagnostics: Collection[str] = (),
        topology: Topology | None = None,
    ) -> None:
        self._task, self._data = task, task.data.tested_on(task.device)
        self._driver, self._modules, self._observe = driver, modules, observe
        self._probe = Objective(task.module(), task.data.loss, task.batches(driver.hosted[0]))
        self._predictions = "predictions" in diagnostics and task.data.classes is not None
        self._gradients = "gradients" in diagnostics
        self._edges = edges_of(topology) if "edges" in diagnostics else None

    def __call__(
        self,
        round: int,
        seconds: float,
        models: Mapping[int, Tensor],
        losses: Mapping[int, Tensor],
        shares: Mapping[int, tuple[Tensor, float]] | None = None,
        notes: Mapping[str, float] | None = None,
        free: FreeSteps | None = None,
        tokens: list[RestingToken] | None = None,
    ) -> None:
        """Evaluate the hosted models `(d,)` after `round` rounds and `seconds` of training.

        Args:
            shares: what each hosted node adds to the averaged model, and its weight; its own model unless given.
            notes: of consensus control.
            free: how far all nodes of a free run have come.
            tokens: of a run that ends here.
        """
        average = self._averaged(models, shares)
        began = perf_counter()
        whole = self._whole(average) if self._predictions or self._records(models) else None
        own = {node: self._node(node, x, average, whole, seconds, losses.get(node)) for node, x in models.items()}
        gradients = {node: self._gradient(node, average) for node in models} if self._gradients else {}
        patience_s = SLOWER * (perf_counter() - began)
        nodes, living = self._driver.gather(own, patience_s), self._driver.living
        # From here on all go on together, so that one more mean needs no more patience than in a round.
        further = self._between_gradients(gradients, patience_s) | self._between_neighbors(models, patience_s)
        recorder = None
        while recorder != self._driver.living[0]:  # again, where it has died meanwhile
            recorder = self._driver.living[0]
            if self._records(models):
                whole = whole or self._whole(average)
                noted = {"control": control(notes)} if notes else {}
                went = {"free_run": FreeRun(**free._asdict())} if free else {}
                row = self._evaluation(round, average, whole, nodes, living)
                self._observe(row.model_copy(update=further | noted | went | {"tokens": tokens}))
            self._driver.gather({node: [0.0] for node in models}, patience_s)

    def _averaged(self, models: Mapping[int, Tensor], shares: Mapping[int, tuple[Tensor, float]] | None) -> Tensor:
        if not shares:
            return self._driver.mean(models)
        vectors = {node: vector for node, (vector, _) in shares.items()}
        return self._driver.mean(vectors, {node: weight for node, (_, weight) in shares.items()})

    def _records(self, models: Mapping[int, Tensor]) -> bool:
        """Whether this process hosts the node whose process observes."""
        return self._driver.living[0] in models

    def _whole(self, average: Tensor) -> Score:
        return score(self._module_at(average, self._driver.hosted[0]), self._data)

    def _node(
        self, node: int, x: Tensor, average: Tensor, whole: Score | None, seconds: float, loss: Tensor | None
    ) -> list[float]:
        module = self._module_at(x, node)
        own = score(module, self._data)
        differ = torch.nan
        if self._predictions and whole is not None:
            differ = (own.predictions != whole.predictions).double().mean().item()
        if (seen := self._task.test_inputs(node)) is not None:
            own = score(module, replace(self._data, test_inputs=seen.to(self._task.device)))
        training_loss = loss.item() if loss is not None else torch.nan
        sent = self._driver.bytes_sent[node]
        return [own.loss, own.accuracy, square(x - average), training_loss, seconds, float(sent), differ]

    def _gradient(self, node: int, average: Tensor) -> Tensor:
        return gradient_of(self._module_at(average, node), self._data.loss, *sampled(self._task, node))

    def _between_gradients(self, gradients: Mapping[int, Tensor], patience_s: float) -> dict[str, float | None]:
        """Heterogeneity and diversity, from each hosted node's gradient `(d,)` at the averaged model."""
        if not gradients:
            return {}
        mean = self._driver.mean(gradients)
        apart = self._driver.gather({node: [square(g - mean)] for node, g in gradients.items()}, patience_s)
        living = self._driver.living
        heterogeneity = sum(apart[node][0] for node in living) / len(living)
        found = diversity(heterogeneity, square(mean))
        return {
            "heterogeneity": finite(heterogeneity),
            "gradient_diversity": None if found is None else finite(found),
        }

    def _between_neighbors(self, models: Mapping[int, Tensor], patience_s: float) -> dict[str, float | None]:
        """The bound on the consensus distance; where other processes host neighbors, every model is sent to all."""
        if self._edges is None or len(self._driver.living) < len(self._edges.rows):  # no bound without an edge's end
            return {}
        sums = dict.fromkeys(models, 0.0)
        for other in range(len(self._edges.rows)):
            theirs = models[other] if len(models) == len(self._edges.rows) else self._model_of(other, models)
            for node, x in models.items():
                sums[node] += self._edges.difference(node, other, x, theirs)
        apart = self._driver.gather({node: [total] for node, total in sums.items()}, patience_s)
        if len(self._driver.living) < len(self._edges.rows):
            return {}
        return {"consensus_bound": finite(self._edges.bound([total for (total,) in apart]))}

    def _model_of(self, other: int, models: Mapping[int, Tensor]) -> Tensor:
        """Another node's model `(d,)`: n times the mean of it and zeros."""
        only = {node: x if node == other else torch.zeros_like(x) for node, x in models.items()}
        assert self._edges is not None
        return self._driver.mean(only) * len(self._edges.rows)

    def _evaluation(
        self, round: int, average: Tensor, whole: Score, nodes: list[list[float]], living: tuple[int, ...]
    ) -> Evaluation:
        there = [nodes[node] for node in living]
        test_losses, accuracies, distances2, losses, seconds, sent, differ = (
            list(column) for column in zip(*there, strict=True)
        )

        def of_all(values: list[T]) -> list[T | None]:
            found = dict(zip(living, values, strict=True))
            return [found.get(node) for node in range(len(nodes))]

        classes = self._data.classes is not None
        return Evaluation(
            round=round,
            seconds=max(seconds),
            loss=finite(sum(losses) / len(losses)),
            test_loss=finite(whole.loss),
            accuracy=whole.accuracy if classes else None,
            node_accuracy=of_all(accuracies) if classes else None,
            node_test_loss=of_all([finite(value) for value in test_losses]),
            consensus_distance=finite((sum(distances2) / len(distances2)) ** 0.5),
            distance_to_optimum=self._distance_to_optimum(average),
            bytes_sent=of_all([int(count) for count in sent]),
            accuracy_spread=spread(accuracies) if classes else None,
            disagreement=finite(sum(differ) / len(differ)),
        )

    def _module_at(self, x: Tensor, node: int) -> nn.Module:
        """A module with the parameters `x: (d,)` and a node's buffers; the average is evaluated with node 0's.

        A process that does not host node 0 takes its own first node's for its copy of the average.
        """
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
def score(module: nn.Module, data: Data) -> Score:
    """Loss and accuracy, means over the test samples, and predictions; in evaluation mode."""
    was_training = module.training
    module.eval()
    total, predicted = 0.0, []
    batches = zip(data.test_inputs.split(EVALUATION_BATCH), data.test_targets.split(EVALUATION_BATCH), strict=True)  # type: ignore[no-untyped-call]
    for inputs, targets in batches:
        outputs = module(inputs)
        total += data.loss(outputs, targets).item() * len(inputs)
        if data.classes is not None:
            predicted.append(outputs.argmax(-1).flatten())
    module.train(was_training)
    predictions = torch.cat(predicted) if predicted else data.test_targets.new_empty(0)
    accuracy = torch.nan
    if data.classes is not None:
        accuracy = int((predictions == data.test_targets.flatten()).sum()) / len(predictions)
    return Score(total / len(data.test_inputs), accuracy, predictions)


def control(notes: Mapping[str, float]) -> Control:
    """What consensus control noted, as a document."""
    return Control.model_validate({**notes, "bound": finite(notes["bound"])})


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
