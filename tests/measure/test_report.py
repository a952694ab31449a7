"""The page and the table of a comparison, on synthetic runs that look like real ones."""

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from decentral.errors import ConfigError
from decentral.measure import tables
from decentral.measure.comparison import (
    DOCUMENT,
    Comparison,
    Evaluation,
    MethodResult,
    SeedResult,
    Spread,
    TopologySummary,
)
from decentral.measure.figures import topology_svg
from decentral.measure.report import read_run, summary, write_report
from decentral.measure.tables import comparison_table, plain_rows, rows

HOSTILE = "<script>alert(1)</script> $\\frac"
PARAMETERS = 4810
PLAIN = [name for name, field in MethodResult.model_fields.items() if field.annotation == float | None]
VOID = {"meta", "br", "hr", "img", "link"}


class Sketch:
    """A synthetic method: it approaches `ceiling` at `rate` per round, with its own costs."""

    def __init__(
        self,
        name: str,
        algorithm: str = "dsgd",
        topology: str | None = None,
        rate: float = 0.02,
        ceiling: float = 0.97,
        round_s: float = 0.01,
        vectors: float = 2.0,
        distance: float = 0.5,
        fails_at: dict[int, int] | None = None,
    ) -> None:
        self.name, self.algorithm, self.topology = name, algorithm, topology
        self.rate, self.ceiling, self.round_s, self.vectors = rate, ceiling, round_s, vectors
        self.distance, self.fails_at = distance, fails_at or {}

    @property
    def baseline(self) -> bool:
        return self.topology is None


def evaluations(sketch: Sketch, seed: int, nodes: int, rounds: int, score: str) -> list[Evaluation]:
    noise = np.random.default_rng([seed, len(sketch.name)])
    speed = sketch.rate * noise.uniform(0.85, 1.15)
    per_round = sketch.round_s * noise.uniform(0.9, 1.1)
    found = []
    for turn in range(0, min(rounds, sketch.fails_at.get(seed, rounds)) + 1, 10):
        accuracy = sketch.ceiling - (sketch.ceiling - 0.1) * math.exp(-speed * turn) + noise.normal(0, 0.004)
        own = [accuracy - sketch.distance * abs(noise.normal(0, 0.02)) for _ in range(nodes)]
        loss = 2.3 * math.exp(-speed * turn) + 0.05
        distance = sketch.distance * (1 - math.exp(-turn / 15)) * math.exp(-turn / 250) * noise.uniform(0.9, 1.1)
        found.append(
            Evaluation(
                round=turn,
                seconds=per_round * turn,
                loss=loss if turn else math.nan,
                test_loss=loss * noise.uniform(0.98, 1.02),
                accuracy=accuracy if score == "accuracy" else None,
                node_accuracy=own if score == "accuracy" else None,
                node_test_loss=[loss] * nodes,
                consensus_distance=distance,
                bytes_sent=[int(turn * (4 * PARAMETERS * sketch.vectors + 128))] * nodes,
            )
        )
    return found


def seed_result(sketch: Sketch, seed: int, run: list[Evaluation], target: float | None, folder: str) -> SeedResult:
    failed, last = seed in sketch.fails_at, run[-1]
    reached = None
    for one in run if target is not None and not failed else []:
        if one.accuracy >= target if one.accuracy is not None else one.test_loss <= target:
            reached = one
            break
    return SeedResult(
        seed=seed,
        folder=folder,
        final_accuracy=None if failed else last.accuracy,
        worst_node_accuracy=None if failed or last.node_accuracy is None else min(last.node_accuracy),
        final_test_loss=None if failed else last.test_loss,
        consensus_distance=None if failed else last.consensus_distance,
        rounds_to_target=reached and reached.round,
        seconds_to_target=reached and reached.seconds,
        bytes_to_target=reached and float(np.mean(reached.bytes_sent)),
        seconds=last.seconds,
        bytes_per_node=float(np.mean(last.bytes_sent)),
        speedup_vs_allreduce=None,
        speedup_vs_ddp=None,
        failure=f"node 3 diverged in round {sketch.fails_at[seed]}: its loss is nan" if failed else None,
    )


def over_seeds(values: list[float | None]) -> Spread:
    ranked = sorted(math.inf if value is None else value for value in values)
    low, middle, high = (None if math.isinf(one) else one for one in (ranked[0], median(ranked), ranked[-1]))
    return Spread(min=low, median=middle, max=high)


def method_result(sketch: Sketch, per_seed: list[SeedResult]) -> MethodResult:
    spread = {key: over_seeds([getattr(one, key) for one in per_seed]) for key in PLAIN}
    return MethodResult(
        name=sketch.name,
        algorithm=sketch.algorithm,
        topology=sketch.topology,
        baseline=sketch.baseline,
        **{key: one.median for key, one in spread.items()},
        spread=spread,
        per_seed=per_seed,
    )


def ring(n: int) -> TopologySummary:
    pairs = sorted({(min(i, (i + 1) % n), max(i, (i + 1) % n)) for i in range(n)} - {(0, 0)})
    edges = [(i, j, 1 / 3) for i, j in pairs]
    return TopologySummary(nodes=n, edges=edges, self_weights=[1 / 3] * n, spectral_gap=0.0507, max_degree=2)


def complete(n: int) -> TopologySummary:
    edges = [(i, j, 1 / n) for i in range(n) for j in range(i + 1, n)]
    return TopologySummary(nodes=n, edges=edges, self_weights=[1 / n] * n, spectral_gap=1.0, max_degree=n - 1)


def torus(side: int) -> TopologySummary:
    edges = set()
    for i in range(side):
        for j in range(side):
            for k, m in (((i + 1) % side, j), (i, (j + 1) % side)):
                edges.add((min(i * side + j, k * side + m), max(i * side + j, k * side + m)))
    weighted = [(i, j, 0.1 if (i + j) % 3 else 0.3) for i, j in sorted(edges)]
    return TopologySummary(nodes=side**2, edges=weighted, self_weights=[0.2] * side**2, spectral_gap=0.4, max_degree=4)


GRAPHS = {"ring": ring(16), "complete": complete(16), "torus": torus(4)}
SKETCHES = [
    Sketch("dsgd on ring", topology="ring", rate=0.022, ceiling=0.955, round_s=0.009, vectors=2, distance=0.9),
    Sketch("dsgd on torus", topology="torus", rate=0.024, ceiling=0.962, round_s=0.011, vectors=4, distance=0.4),
    Sketch("dsgd on complete", topology="complete", rate=0.026, round_s=0.03, vectors=15, distance=0.01),
    Sketch("allreduce", "allreduce", rate=0.026, round_s=0.02, vectors=1.875, distance=0),
    Sketch("ddp", "ddp", rate=0.026, round_s=0.016, vectors=1.875, distance=0),
]


def write_comparison(
    folder: Path,
    sketches: list[Sketch] = SKETCHES,
    seeds: tuple[int, ...] = (0, 1, 2),
    nodes: int = 16,
    rounds: int = 300,
    target: float | None = 0.93,
    **changes: Any,
) -> Path:
    """A folder as `decentral speedup` leaves it."""
    score = changes.get("score", "accuracy")
    per_method = []
    for position, sketch in enumerate(sketches):
        per_seed = []
        for seed in seeds:
            name = f"{position}-seed{seed}"
            run = evaluations(sketch, seed, nodes, rounds, score)
            (folder / name).mkdir(parents=True)
            lines = "".join(one.model_dump_json() + "\n" for one in run)
            (folder / name / "metrics.jsonl").write_text(lines)
            per_seed.append(seed_result(sketch, seed, run, target, name))
        per_method.append((sketch, per_seed))
    for algorithm, key in (("allreduce", "speedup_vs_allreduce"), ("ddp", "speedup_vs_ddp")):
        for base in (runs for sketch, runs in per_method if sketch.algorithm == algorithm):
            for one, other in ((a, b) for _, runs in per_method for a, b in zip(runs, base, strict=True)):
                if one.seconds_to_target and other.seconds_to_target:
                    setattr(one, key, other.seconds_to_target / one.seconds_to_target)
    comparison = Comparison(
        **{
            "experiment": "digits-ring",
            "command": "decentral speedup launch/digits.yaml -s nodes=16",
            "clock": "wall",
            "nodes": nodes,
            "rounds": rounds,
            "seeds": list(seeds),
            "score": score,
            "target": target,
            "parameters": PARAMETERS,
            "versions": {"python": "3.11.2", "torch": "2.13.0", "decentral": "0.1.0"},
            "topologies": GRAPHS,
            "methods": [method_result(sketch, runs) for sketch, runs in per_method],
            **changes,
        }
    )
    (folder / DOCUMENT).write_text(comparison.model_dump_json(indent=1))
    return folder
