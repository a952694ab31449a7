"""Who has what: the samples of each node by class, and how far that is from the same for all.

With p_i the shares of the classes among node i's targets and p those among all:

    label distance     1/2 sum_c |p_ic - p_c|, the total variation distance: 0 for the same mixture, near 1 for another
    effective classes  exp(-sum_c p_ic log p_ic): k where k classes are equally frequent
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decentral.config import Experiment, Section
from decentral.measure.comparison import Document
from decentral.measure.diagnostics import diversity, gradient_of, sampled, square
from decentral.training.task import Task

Floats = NDArray[np.float64]


class NodeHoldings(Document):
    """What one node holds."""

    samples: int
    counts: list[int] | None
    """Targets of each class, one a sample unless samples have several; null where there are no classes."""
    label_distance: float | None
    effective_classes: float | None
    origins: list[str] | None
    """What its samples come from (topics, writers), most samples first; null where that is not known."""
    view: str | None
    """How it sees its samples; null: as they are."""


class Holdings(Document):
    """Who has what in a run, `data.json` of a run folder."""

    data: str
    partition: str
    """Of the experiment, with its options."""
    seed: int
    samples: int
    test_samples: int
    classes: list[str] | None
    versions: dict[str, str]
    """What tells this data from other versions of it."""
    label_distance: float | None
    """The mean over nodes."""
    size_ratio: float
    """Samples of the largest node over those of the smallest."""
    nodes: list[NodeHoldings]


def holdings(task: Task, experiment: Experiment) -> Holdings:
    """Count who has what at the task's seed."""
    counts = _counts(task)
    nodes = [_node(task, node, counts) for node in range(len(task.shards))]
    distances = [node.label_distance for node in nodes if node.label_distance is not None]
    sizes = [node.samples for node in nodes]
    return Holdings(
        data=experiment.data.name,
        partition="split by nature" if task.data.shards is not None else _said(experiment.partition),
        seed=task.seed,
        samples=len(task.data.train_inputs),
        test_samples=len(task.data.test_inputs),
        classes=None if counts is None else _class_names(task),
        versions=dict(task.data.versions),
        label_distance=sum(distances) / len(distances) if distances else None,
        size_ratio=max(sizes) / min(sizes),
        nodes=nodes,
    )


def _said(section: Section | None) -> str:
    """`dirichlet(alpha=0.1, min_samples=2)`"""
    if section is None:
        return "iid"
    fields = section.model_dump()
    name = fields.pop("name")
    options = ", ".join(f"{key}={value:g}" for key, value in fields.items())
    return f"{name}({options})" if options else name


def _counts(task: Task) -> NDArray[np.int64] | None:
    """Targets of each node and class, `(nodes, classes)`."""
    classes = task.data.classes
    if classes is None:
        return None
    targets = task.data.train_targets
    rows = [torch.bincount(targets[held].flatten(), minlength=classes) for held in task.shards]
    counts: NDArray[np.int64] = torch.stack(rows).numpy()
    return counts


def _class_names(task: Task) -> list[str]:
    return list(task.data.class_names or map(str, range(task.data.classes or 0)))


def _node(task: Task, node: int, counts: NDArray[np.int64] | None) -> NodeHoldings:
    found: dict[str, Any] = {"counts": None, "label_distance": None, "effective_classes": None}
    if counts is not None:
        found = {
            "counts": counts[node].tolist(),
            "label_distance": label_distance(counts)[node],
            "effective_classes": effective_classes(counts)[node],
        }
    view = None if task.shift is None else task.shift.told(node)
    return NodeHoldings(samples=len(task.shards[node]), origins=_origins(task, node), view=view, **found)


def _origins(task: Task, node: int) -> list[str] | None:
    origins, names = task.data.origins, task.data.origin_names
    if origins is None:
        return None
    values, sizes = origins[task.shards[node]].unique(return_counts=True)  # type: ignore[no-untyped-call]
    ordered = values[sizes.argsort(descending=True, stable=True)].tolist()
    return [names[value] if names else str(value) for value in ordered]


def label_distance(counts: NDArray[np.int64]) -> list[float]:
    """Of each row of `counts: (nodes, classes)` from their sum."""
    shares, overall = counts / counts.sum(axis=1, keepdims=True), counts.sum(axis=0) / counts.sum()
    distances: list[float] = (np.abs(shares - overall).sum(axis=1) / 2).tolist()
    return distances


def effective_classes(counts: NDArray[np.int64]) -> list[float]:
    """Of each row of `counts: (nodes, classes)`."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    logarithms = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    found: list[float] = np.exp(-(shares * logarithms).sum(axis=1)).tolist()
    return found


def gradients_at_start(task: Task) -> tuple[float, float | None]:
    """Heterogeneity zeta^2 and gradient diversity of the nodes at the model that all begin with."""
    module = task.module()
    gradients = [gradient_of(module, task.data.loss, *sampled(task, node)) for node in range(len(task.shards))]
    mean = torch.stack(gradients).mean(dim=0)
    heterogeneity = sum(square(gradient - mean) for gradient in gradients) / len(gradients)
    return heterogeneity, diversity(heterogeneity, square(mean))
