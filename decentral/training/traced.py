"""Objectives and local optimizers that note on a timeline when they compute; what they compute is the same."""

from dataclasses import replace
from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor, nn

from decentral.algorithms.local import LocalOptimizer
from decentral.peer import LossAndGradient
from decentral.timeline import Timeline
from decentral.training.objective import Loss, Objective
from decentral.training.task import Task


class TimedLoss:
    """A loss that remembers when it was last known: there the forward pass ends and the backward pass begins."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self.known_ns = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = self._loss(outputs, targets)
        self.known_ns = perf_counter_ns()
        return loss


class TracedGradient:
    """One node's objective, and its answer to `Gradient` with the two passes as spans.

    The forward pass begins with the drawing of the minibatch.
    """

    def __init__(self, task: Task, node: int, timeline: Timeline) -> None:
        self._loss, self._timeline = TimedLoss(task.data.loss), timeline
        self.objective = Objective(task.module(), self._loss, task.batches(node))

    def __call__(self, at: Tensor) -> LossAndGradient:
        began = perf_counter_ns()
        answer = self.objective.gradient(at)
        ended = perf_counter_ns()
        self._timeline.add("forward", began, self._loss.known_ns)
        self._timeline.add("backward", self._loss.known_ns, ended)
        return answer


def traced_local(local: LocalOptimizer, timeline: Timeline) -> LocalOptimizer:
    """The same local optimizer, each of its steps a span."""

    def watched(*parameters: Any, **options: Any) -> torch.optim.Optimizer:
        optimizer = local.factory(*parameters, **options)
        _watch_steps(optimizer, timeline)
        return optimizer

    return replace(local, factory=watched)


def _watch_steps(optimizer: torch.optim.Optimizer, timeline: Timeline) -> None:
    began = 0

    def before(*_: Any) -> None:
        nonlocal began
        began = perf_counter_ns()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(lambda *_: timeline.add("local step", began, perf_counter_ns()))


def traced_ddp(task: Task, local: LocalOptimizer, module: nn.Module, timeline: Timeline) -> tuple[Task, LocalOptimizer]:
    """A task and a local optimizer that put DDP's own loop on a timeline, seen from outside.

    A round is from the forward pass of `module` to the optimizer's step, both inclusive; DDP's all-reduce is in the
    backward pass.
    """
    began, loss = 0, TimedLoss(task.data.loss)

    def begin(*_: Any) -> None:
        nonlocal began
        timeline.begin_round(timeline.rounds_seen)
        began = perf_counter_ns()

    def passed(*_: Any) -> None:
        timeline.add("forward", began, loss.known_ns)
        timeline.add("backward", loss.known_ns, perf_counter_ns())

    def watched(*parameters: Any, **options: Any) -> torch.optim.Optimizer:
        optimizer = local.factory(*parameters, **options)
        optimizer.register_step_pre_hook(passed)
        _watch_steps(optimizer, timeline)
        optimizer.register_step_post_hook(lambda *_: timeline.add("round", began, perf_counter_ns()))
        return optimizer

    module.register_forward_pre_hook(begin)
    return replace(task, data=replace(task.data, loss=loss)), replace(local, factory=watched)
