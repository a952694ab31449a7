"""The methods of an experiment, each complete and labeled: its own, those it is compared with, and the baselines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from decentral.config import (
    DSGD,
    Algorithm,
    Choco,
    ConsensusControl,
    DelayedDSGD,
    DiLoCo,
    Experiment,
    FedAvg,
    GASLoC,
    Hierarchical,
    HubSection,
    Method,
    NoLoCo,
    Optimizer,
    PowerGossip,
    Section,
    SparseLoCo,
    Sparta,
    Swift,
    TokenSection,
    Topology,
)

_ORDERS = {"adapt-then-combine": "", "combine-then-adapt": "cta", "adapt-while-communicate": "awc"}


@dataclass(frozen=True, slots=True)
class ResolvedMethod:
    """One complete method.

    Attributes:
        label: its name in tables, unique in the experiment.
        baseline: whether the file lists it under `baselines`.
    """

    label: str
    algorithm: Algorithm
    topology: Topology
    optimizer: Optimizer
    baseline: bool


def methods(experiment: Experiment) -> list[ResolvedMethod]:
    """The experiment's own method, then `compare`, then `baselines`; what an entry leaves out is the file's own."""
    entries = [Method(), *experiment.compare, *experiment.baselines]
    resolved = [
        ResolvedMethod(
            label=entry.label or "",
            algorithm=entry.algorithm or experiment.algorithm,
            topology=entry.topology or experiment.topology,
            optimizer=entry.optimizer or experiment.optimizer,
            baseline=index > len(experiment.compare),
        )
        for index, entry in enumerate(entries)
    ]
    return [replace(method, label=label) for method, label in zip(resolved, _labels(resolved), strict=True)]


def untuned(experiment: Experiment) -> Experiment:
    """The same with one learning rate for all, so that no method is named after the rate that it will lose."""

    def leveled(entries: Sequence[Method]) -> list[Method]:
        return [
            entry.model_copy(update={"optimizer": with_rate(entry.optimizer, rate)}) if entry.optimizer else entry
            for entry in entries
        ]

    rate = experiment.optimizer.lr
    changes = {"compare": leveled(experiment.compare), "baselines": leveled(experiment.baselines)}
    return experiment.model_copy(update=changes)


def with_rate(optimizer: Optimizer, lr: float) -> Optimizer:
    """The same optimizer with another learning rate."""
    return optimizer.model_copy(update={"lr": lr})


def _labels(resolved: Sequence[ResolvedMethod]) -> Iterator[str]:
    taken = {method.label for method in resolved}
    unlabeled = [method for method in resolved if not method.label]
    for method in resolved:
        if method.label:
            yield method.label
            continue
        rivals = [other for other in unlabeled if _described(other) == _described(method)]
        label = numbered = " ".join([_described(method), *_differences(method, rivals)])
        count = 1
        while numbered in taken:
            count += 1
            numbered = f"{label} {count}"
        taken.add(numbered)
        yield numbered


def _described(method: ResolvedMethod) -> str:
    """`dsgd awc ring tau=4`: the algorithm, what its name leaves open, and the graph."""
    if isinstance(method.algorithm, ConsensusControl):
        of = replace(method, algorithm=method.algorithm.of)
        return " ".join([_described(of), *control_words(method.algorithm)])
    words: list[str] = [method.algorithm.name]
    if isinstance(method.algorithm, Hierarchical):
        words += [str(method.algorithm.group), method.algorithm.between]
    if isinstance(method.algorithm, DSGD | Choco | Hierarchical | Sparta):
        words.append(_ORDERS[method.algorithm.order])
    if not method.algorithm.centralized:
        words += [Path(method.topology.name).stem, *schedule_words(method.topology)]
    if isinstance(method.algorithm, DSGD | Choco | Hierarchical | GASLoC | NoLoCo | SparseLoCo | DiLoCo | FedAvg):
        words += [f"tau={method.algorithm.every}"] if method.algorithm.every > 1 else []
    if isinstance(method.algorithm, DelayedDSGD):
        given = method.algorithm.model_dump(include={"of", "delay"}, exclude_defaults=True)
        words += [f"{key}={value}" for key, value in given.items()]
    if isinstance(method.algorithm, Swift) and method.algorithm.weights != "topology":
        words.append(method.algorithm.weights)
    if isinstance(method.algorithm, HubSection):
        given = method.algorithm.model_dump(exclude={"name", "importance"}, exclude_defaults=True)
        words += [str(value) if key in ("rule", "assign") else f"{key}={value}" for key, value in given.items()]
    if isinstance(compression := getattr(method.algorithm, "compression", None), Section):
        words += compression_words(compression)
    if isinstance(method.algorithm, PowerGossip):
        given = method.algorithm.model_dump(include={"rank", "iterations"}, exclude_defaults=True)
        words += [f"{key}={value}" for key, value in given.items()]
    if isinstance(method.algorithm, TokenSection):
        words += walk_words(method.algorithm)
    return " ".join(filter(None, words))


def control_words(section: ConsensusControl) -> list[str]:
    """`control=0.5 relative in 2 phases`: what nodes are kept within."""
    words = [f"control={'none' if section.target is None else format(section.target, 'g')}"]
    words += ["relative"] if section.relative else []
    return words + ([f"in {len(section.phases) + 1} phases"] if section.phases else [])


def walk_words(section: TokenSection) -> list[str]:
    """`srrw alpha=5 tokens=3`: how many models walk, and how."""
    words: list[str] = [section.kernel]
    words += [f"alpha={section.alpha:g}"] if section.alpha else []
    words += ["counts at nodes"] if section.counts_at == "nodes" else []
    return words + ([f"tokens={section.tokens}"] if section.tokens > 1 else [])


def compression_words(compression: Section) -> list[str]:
    """`top-k fraction=0.1 values=int8`: a compressor that is not none, and what is not its default."""
    given = compression.model_dump(exclude_defaults=True)
    if given["name"] == "none":
        return []
    sections = {key: value["name"] if isinstance(value, dict) else value for key, value in given.items()}
    return [given["name"], *(f"{key}={value}" for key, value in sections.items() if key != "name")]


def schedule_words(topology: Topology) -> list[str]:
    """`matcha budget=0.3`: a schedule that is not static, and what is not its default."""
    schedule = topology.schedule
    if schedule.name == "static":
        return []
    return [
        f"{schedule.name}",
        *(f"{key}={value}" for key, value in schedule.model_dump(exclude_defaults=True).items() if key != "name"),
    ]


def _differences(method: ResolvedMethod, rivals: Sequence[ResolvedMethod]) -> list[str]:
    """`lr=0.05`: what sets a method apart from others of the same description."""
    others = [_traits(rival) for rival in rivals]
    own = _traits(method)
    return [f"{key}={value}" for key, value in own.items() if any(other.get(key) != value for other in others)]


def _traits(method: ResolvedMethod) -> dict[str, Any]:
    traits = method.algorithm.model_dump(exclude={"name"})
    for key in traits:
        if isinstance(section := getattr(method.algorithm, key), Section):
            traits[key] = " ".join(compression_words(section)) or "none"
    if not method.algorithm.centralized:
        graph = method.topology
        schedule = " ".join(schedule_words(graph)) or "static"
        traits |= {
            "topology": graph.name,
            "weights": graph.weights or "default",
            "scaling": graph.scaling,
            "schedule": schedule,
        }
        traits |= graph.options
    rate = " ".join(rate_words(method.optimizer)) or "constant"
    optimizer = {"optimizer": method.optimizer.name, "lr": method.optimizer.lr, "rate": rate}
    return {**traits, **optimizer, **method.optimizer.options}


def rate_words(optimizer: Optimizer) -> list[str]:
    """`cosine warmup=10`: a learning rate that is not constant, and what is not its schedule's default."""
    given = optimizer.schedule.model_dump(exclude_defaults=True, exclude={"name"})
    words = [f"{key}={value}" for key, value in given.items()]
    return [optimizer.schedule.name, *words] if words or optimizer.schedule.name != "constant" else []
