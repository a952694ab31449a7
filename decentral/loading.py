"""From an experiment file to an Experiment: read, override, check, and tell every section where it stands.

Whatever is wrong becomes one line: `ring.yaml:4:1: nodez: unknown key; did you mean 'nodes'?`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from decentral.config import (
    AsynchronousSection,
    Experiment,
    HubSection,
    KeyPath,
    Linear,
    OwnCode,
    Quadratics,
    Section,
)
from decentral.document import Document, dotted
from decentral.errors import ConfigError
from decentral.faults import Fault, faults_in, refusal
from decentral.strict_yaml import shown

_REST = {"nodes": 1, "rounds": 1, "data": "digits", "model": "linear", "algorithm": "dsgd", "topology": "ring"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """An experiment, and the document that it came from, which places later errors."""

    experiment: Experiment
    document: Document


def load(path: str | PathLike[str], overrides: Iterable[str] = ()) -> Loaded:
    """The experiment in a YAML file.

    Its name is the file's unless given, and its folder is where relative paths in it start.

    Args:
        path: the file.
        overrides: `key=value`, with a dotted key; later ones win.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a value out of bounds, or sections that contradict
            each other; one line with the place, for the first of them.
    """
    document = Document.read(path)
    for assignment in overrides:
        document = document.override(assignment)
    experiment = _validated(document, Path(path))
    faults = [*_misread(document.tree, experiment.model_dump()), *_contradictions(experiment)]
    if faults:
        raise refusal(document, faults)
    _stamp(experiment, ())
    experiment._folder = Path(path).resolve().parent
    return Loaded(experiment, document)


def example_with(**sections: Any) -> Experiment:
    """An experiment with these sections, whose rest means nothing.

    Raises:
        ConfigError: what is wrong with the first of them, at its key path.
    """
    try:
        experiment = Experiment.model_validate({**_REST, **sections})
    except ValidationError as error:
        fault = min(faults_in(error), key=lambda fault: not fault.unknown_key)
        raise ConfigError(fault.message, fault.path) from error
    _stamp(experiment, ())
    return experiment


def _validated(document: Document, path: Path) -> Experiment:
    try:
        return Experiment.model_validate({"name": _name_from(path), **document.tree})
    except ValidationError as error:
        raise refusal(document, faults_in(error)) from error


def _name_from(path: Path) -> str:
    allowed = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem)
    return re.sub(r"^[._-]+", "", allowed)[:64] or "experiment"


def _misread(raw: Any, value: Any, path: KeyPath = ()) -> Iterator[Fault]:
    """Where pydantic takes true and false for the numbers 1 and 0."""
    if isinstance(raw, bool) and not isinstance(value, bool):
        yield Fault(path, f"found {shown(raw)}; required: {'an integer' if isinstance(value, int) else 'a number'}")
    elif isinstance(raw, dict):
        for key, item in raw.items():
            yield from _misread(item, value[key], (*path, key))
    elif isinstance(raw, list):
        for index, item in enumerate(raw):
            yield from _misread(item, value[index], (*path, index))


def _contradictions(experiment: Experiment) -> Iterator[Fault]:
    """What no field can see alone."""
    yield from _repeated_seeds(experiment.seeds)
    yield from _empty_or_repeated_methods(experiment)
    yield from _shifts_of_nothing(experiment)
    yield from _time_for_nobody(experiment)
    if not isinstance(experiment.data, Quadratics):
        return
    if experiment.partition is not None:
        yield Fault(("partition",), "quadratics are split by nature, one problem per node; remove partition")
    if experiment.shift is not None:
        yield Fault(("shift",), "quadratics differ between nodes by zeta2, about a known optimum; remove shift")
    if not isinstance(experiment.model, Linear | OwnCode):
        found = f"quadratics with model {experiment.model.name!r}"
        yield Fault(("model", "name"), f"found {found}; required: linear, or module:function")


def _shifts_of_nothing(experiment: Experiment) -> Iterator[Fault]:
    strengths = {} if experiment.shift is None else experiment.shift.model_dump(exclude={"name", "test"})
    if strengths and not any(strengths.values()):
        yield Fault(("shift",), f"shifts nothing; required: at least one of {', '.join(strengths)} above 0")


def _time_for_nobody(experiment: Experiment) -> Iterator[Fault]:
    """A time where all methods are known to run in rounds; the user's own code may not. Or parts of no time."""
    if experiment.evaluate_every_s is not None and experiment.duration_s is None:
        yield Fault(
            ("evaluate_every_s",), "found no duration_s: without it nodes are evaluated by steps, evaluate_every"
        )
    entries = [*experiment.compare, *experiment.baselines]
    named = [experiment.algorithm, *(entry.algorithm for entry in entries if entry.algorithm is not None)]
    if experiment.duration_s is None or any(
        isinstance(each, AsynchronousSection | HubSection | OwnCode) for each in named
    ):
        return
    keys = "duration_s" if experiment.evaluate_every_s is None else "duration_s and evaluate_every_s"
    yield Fault(
        ("duration_s",),
        f"found {experiment.duration_s:g} s, but {experiment.algorithm.name} makes {experiment.rounds} rounds however "
        f"long they take, as do all it is compared with; leave {keys} out, or take an asynchronous method, as swift",
    )


def _repeated_seeds(seeds: list[int]) -> Iterator[Fault]:
    firsts: dict[int, int] = {}
    for index, seed in enumerate(seeds):
        first = firsts.setdefault(seed, index)
        if first < index:
            yield Fault(("seeds", index), f"{seed} is also seeds.{first}; one run is made per seed, so remove one")


def _empty_or_repeated_methods(experiment: Experiment) -> Iterator[Fault]:
    labels: dict[str, KeyPath] = {}
    for key in ("compare", "baselines"):
        for index, method in enumerate(getattr(experiment, key)):
            path: KeyPath = (key, index)
            if method.algorithm is None and method.topology is None and method.optimizer is None:
                yield Fault(path, "names nothing to compare; required: at least one of algorithm, topology, optimizer")
            if method.label in labels:
                other = dotted(labels[method.label])
                yield Fault((*path, "label"), f"{shown(method.label)} is also the label of {other}; change one of them")
            elif method.label is not None:
                labels[method.label] = path


def _stamp(value: Any, path: KeyPath) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _stamp(item, (*path, index))
    elif isinstance(value, Section):
        value._path = path
        for key in type(value).model_fields:
            _stamp(getattr(value, key), (*path, key))
