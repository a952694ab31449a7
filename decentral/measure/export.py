"""One model file out of a run: a node's model, the best one, or the average of all."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from decentral.algorithms import TOKEN_METHODS
from decentral.errors import ConfigError
from decentral.measure.atomic import write_atomically
from decentral.measure.checkpoints import METRICS, Checkpoints
from decentral.measure.comparison import Evaluation
from decentral.measure.report import read_run

Model = dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """The models of a run at one round.

    Attributes:
        name: of the experiment.
        last: the latest evaluation until then.
        model: reads a node's model: parameters and buffers by the module's own names.
        walks: whether the trained model is one that walks, and a node's what it has seen last.
    """

    name: str
    round: int
    nodes: int
    last: Evaluation
    model: Callable[[int], Model]
    walks: bool = False


def source(run: Path, wanted: str | None) -> Source:
    """A run's final models, or those of a checkpoint: the one that is named, or the newest of an unfinished run.

    Raises:
        ConfigError: no such run or checkpoint, or one of its files is missing or changed.
    """
    if wanted is None and any((run / "models").glob("*.safetensors")):
        return _finished(run)
    checkpoints = Checkpoints(run)
    manifest = checkpoints.manifest(checkpoints.choose(wanted))
    rows = [Evaluation.model_validate_json(line) for line in checkpoints.metrics(manifest).splitlines()]
    name = str(manifest.experiment.get("name", run.name))

    def model(node: int) -> Model:
        return checkpoints.snapshot(manifest, node).model()

    return Source(name, manifest.round, manifest.nodes, rows[-1], model, _walks(manifest.experiment))


def _finished(run: Path) -> Source:
    path = run / "config.json"
    try:
        config = json.loads(path.read_bytes())
        name, nodes, walks = str(config["name"]), int(config["nodes"]), _walks(config)
        last = read_run(run / METRICS)[-1]
    except (OSError, ValueError, KeyError, TypeError, IndexError, ValidationError) as error:
        raise ConfigError(f"{path}: not the record of a run ({error}); give the folder of one run") from error

    def model(node: int) -> Model:
        file = run / "models" / f"node-{node}.safetensors"
        try:
            return load(file.read_bytes())
        except (OSError, SafetensorError) as error:
            living = f"those of {nodes} nodes that live to its end"
            raise ConfigError(f"{file}: cannot be read ({error}); a run leaves one for each of {living}") from error

    return Source(name, last.round, nodes, last, model, walks)


def _walks(experiment: Mapping[str, Any]) -> bool:
    method = TOKEN_METHODS.get(experiment["algorithm"]["name"])
    return method is not None and method.model_walks


def exported(source: Source, which: str) -> tuple[Model, Mapping[str, str]]:
    """A model, and what is to be said of it.

    Args:
        which: `average`, `best` or `node=3`. The average is the mean over nodes of everything in floating point,
            buffers included; other buffers are the first's. The best node is that of highest own accuracy in the last
            evaluation, or of lowest own test loss where there are no classes; of equals the first.

    Raises:
        ConfigError: another word, no such node, a model file is missing, or the average of models that only tokens
            have.
    """
    if which == "average" and source.walks:
        raise ConfigError(
            "--model average: this run's model walks, and each node has kept what it saw last, so their mean is of "
            f"different ages; take --model best, or node=0 to node={source.nodes - 1}"
        )
    node = None if which == "average" else _node(source, which)
    model = average(source) if node is None else source.model(node)
    about = {"experiment": source.name, "round": str(source.round), "model": which, "nodes": str(source.nodes)}
    return model, {"format": "pt"} | about | ({} if node is None else {"node": str(node)})


def _node(source: Source, which: str) -> int:
    if which == "best":
        return best(source.last)
    word, _, number = which.partition("=")
    if word == "node" and number.isdecimal() and int(number) < source.nodes:
        return int(number)
    raise ConfigError(f"--model {which}: required: average, best, or node=0 to node={source.nodes - 1}")


def best(row: Evaluation) -> int:
    """The node whose own model did best in an evaluation."""
    if row.node_accuracy is not None:
        return row.node_accuracy.index(max(row.accuracies))
    losses = [float("inf") if loss is None else loss for loss in row.node_test_loss]
    return losses.index(min(losses))


def average(source: Source) -> Model:
    """The mean model of the living, summed in ascending order of nodes, as a simulated run's evaluation sums it."""
    first, *others = source.last.living
    total = source.model(first)
    averaged = [name for name, tensor in total.items() if tensor.is_floating_point()]
    for node in others:
        model = source.model(node)
        for name in averaged:
            total[name].add_(model[name])
    for name in averaged:
        total[name].div_(1 + len(others))
    return total


def write_model(path: Path, model: Model, about: Mapping[str, str]) -> None:
    """Write a model as safetensors, whole or not at all."""
    write_atomically(path, save({name: t.contiguous().clone() for name, t in model.items()}, metadata=dict(about)))
