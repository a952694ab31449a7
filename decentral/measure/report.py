"""The page of a comparison: one HTML file that stands alone, made from the folder that `decentral speedup` wrote."""

import json
import math
import os
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError

from decentral.errors import ConfigError
from decentral.measure import tables
from decentral.measure.comparison import Comparison, Evaluation, MethodResult, SeedResult
from decentral.measure.figures import DRAWN_EDGES, TITLES, Series, Style, curves_svg, topology_svg
from decentral.measure.tables import printable

COLORS = ("#3b82d6", "#d9730d", "#2e9e5b", "#9b5de5", "#d6456b", "#1a9ba8", "#a67c00", "#c04fc0")
BASELINE_COLORS = ("#7c8694", "#a87a58", "#5f8f8a")
MARKERS = "osD^vPp"
BASELINE_MARKERS = "Xhd"
BASELINES = {"allreduce": ("all-reduce", "speedup_vs_allreduce"), "ddp": ("DDP", "speedup_vs_ddp")}
NUMBERS = [name for name, field in Evaluation.model_fields.items() if field.annotation is float]


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a comparison's folder, whole or not at all.

    Args:
        folder: holds `speedup.json`, and for each run a folder with `metrics.jsonl`.

    Returns:
        The page's path.

    Raises:
        ConfigError: a file is missing, torn or foreign, or the page cannot be written.
    """
    comparison = read_comparison(folder / "speedup.json")
    page = _page(comparison, [_series(folder, *one) for one in _styled(comparison)])
    path = folder / "report.html"
    partial = path.with_name(f".report.html.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); make room or give it permission") from error
    return path


def read_comparison(path: Path) -> Comparison:
    """The document of a comparison.

    Raises:
        ConfigError: there is no such file, or it is not what `decentral speedup` writes.
    """
    try:
        return Comparison.model_validate_json(_bytes(path))
    except ValidationError as error:
        raise _foreign(path, error, "the document that `decentral speedup` writes") from error


def read_run(path: Path) -> list[Evaluation]:
    """The evaluations of one run; a last line cut short by a crash does not count.

    Raises:
        ConfigError: there is no such file, or one of its lines is not an `Evaluation`.
    """
    *lines, rest = _bytes(path).split(b"\n")
    found = [_evaluation(path, number, line) for number, line in enumerate(lines, start=1)]
    try:
        json.loads(rest)
    except ValueError:
        return found
    return [*found, _evaluation(path, len(lines) + 1, rest)]


def summary(comparison: Comparison) -> str:
    """Who reached the target first and how that compares with both baselines, whoever wins."""
    seeds = len(comparison.seeds)
    over = f"median of {seeds} seeds" if seeds > 1 else "one seed"
    first, gossip = _leader(comparison.methods), _leader([m for m in comparison.methods if not m.baseline])
    if comparison.target is None or first is None:
        return _without_target(comparison, over)
    opening = f"{printable(first.name)} reached {_target(comparison)} first, in {_cost(first, comparison)} ({over})"
    if not first.baseline:
        return f"{opening}: {_against_baselines(first, comparison)}."
    if gossip is None:
        return f"The centralized baseline {opening}; no decentralized method reached it."
    behind = f"the fastest decentralized method, {printable(gossip.name)}, took {_cost(gossip, comparison)}"
    return f"The centralized baseline {opening}; {behind}: {_against_baselines(gossip, comparison)}."


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        text = f"{path}: cannot be read ({error.strerror}); give the whole folder that `decentral speedup` wrote"
        raise ConfigError(text) from error


def _foreign(path: Path, error: ValidationError, expected: str, where: str = "") -> ConfigError:
    first = error.errors()[0]
    at = ".".join(map(str, first["loc"])) or "the whole"
    return ConfigError(f"{path}:{where} {at}: {first['msg']}; expected {expected}")


def _evaluation(path: Path, number: int, line: bytes) -> Evaluation:
    expected = "one evaluation per line, as `decentral` writes them"
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{path}:{number}: not JSON ({error}); expected {expected}") from error
    if isinstance(raw, dict):
        raw |= {name: math.nan for name in NUMBERS if raw.get(name, 0) is None}
    try:
        return Evaluation.model_validate(raw)
    except ValidationError as error:
        raise _foreign(path, error, expected, f"{number}:") from error


def _styled(comparison: Comparison) -> list[tuple[MethodResult, Style]]:
    """Dashed neutral tones for baselines, colors for the others, in the table's order."""
    methods = tables.ordered(comparison)
    first_baseline = sum(not method.baseline for method in methods)
    found = []
    for position, method in enumerate(methods):
        count = position - first_baseline if method.baseline else position
        colors, markers = (BASELINE_COLORS, BASELINE_MARKERS) if method.baseline else (COLORS, MARKERS)
        found.append((method, Style(colors[count % len(colors)], markers[count % len(markers)], method.baseline)))
    return found


def _series(folder: Path, method: MethodResult, style: Style) -> Series:
    runs = [_evaluations_of(folder, run) for run in method.per_seed]
    rounds = sorted({evaluation.round for run in runs for evaluation in run})
    values = {key: np.full((len(runs), len(rounds)), np.nan) for key in TITLES}
    for seed, run in enumerate(runs):
        for evaluation in run:
            for key, number in _measured(evaluation).items():
                values[key][seed, rounds.index(evaluation.round)] = math.nan if number is None else number
    return Series(printable(method.name), style, values, tuple(run.failure is not None for run in method.per_seed))


def _evaluations_of(folder: Path, run: SeedResult) -> list[Evaluation]:
    if Path(run.folder).is_absolute() or ".." in Path(run.folder).parts:
        raise ConfigError(f"{folder / 'speedup.json'}: run folder {run.folder!r} lies outside; expected one within")
    path = folder / run.folder / "metrics.jsonl"
    if run.failure is not None and not path.exists():
        return []
    evaluations = read_run(path)
    if not evaluations and run.failure is None:
        raise ConfigError(f"{path}: no evaluation in it; expected at least one, since the run went through")
    return evaluations


def _measured(evaluation: Evaluation) -> dict[str, float | None]:
    return {
        "rounds": evaluation.round,
        "bytes": float(np.mean(evaluation.bytes_sent)) if evaluation.bytes_sent else None,
        "seconds": evaluation.seconds,
        "accuracy": evaluation.accuracy,
        "test_loss": evaluation.test_loss,
        "consensus": evaluation.consensus_distance,
    }


def _leader(methods: list[MethodResult]) -> MethodResult | None:
    """Who needed the fewest seconds to the target, or rounds where there was no clock."""
    timed = [(m.seconds_to_target, m) for m in methods if m.seconds_to_target is not None]
    counted = [(m.rounds_to_target, m) for m in methods if m.rounds_to_target is not None]
    return min(timed or counted, key=lambda pair: pair[0], default=(0.0, None))[1]


def _score(comparison: Comparison, value: float) -> str:
    if comparison.score == "accuracy":
        return f"{tables.said(tables.in_percent, value)} test accuracy"
    return f"a test loss of {tables.said(tables.in_loss, value)}"


def _target(comparison: Comparison) -> str:
    assert comparison.target is not None
    return f"the target of {_score(comparison, comparison.target).removeprefix('a ')}"


def _cost(method: MethodResult, comparison: Comparison) -> str:
    if comparison.clock == "wall":
        return tables.said(tables.in_seconds, method.seconds_to_target)
    return f"{tables.said(tables.in_rounds, method.rounds_to_target)} rounds"


def _against_baselines(method: MethodResult, comparison: Comparison) -> str:
    return " and ".join(_against(method, comparison, algorithm) for algorithm in BASELINES)


def _against(method: MethodResult, comparison: Comparison, algorithm: str) -> str:
    name, key = BASELINES[algorithm]
    baseline = next((m for m in comparison.methods if m.baseline and m.algorithm == algorithm), None)
    speedup = getattr(method, key)
    if baseline is None:
        return f"{name} was not run"
    if baseline.rounds_to_target is None:
        return f"{name} did not reach it"
    if speedup is None:
        return f"{name} took {_cost(baseline, comparison)}"
    spread = tables.ranged(tables.in_times, method.spread.get(key))
    return f"{tables.said(tables.in_times, speedup)} as fast as {name}" + (f" ({spread})" if spread else "")


def _without_target(comparison: Comparison, over: str) -> str:
    column = tables.columns(comparison)[0]
    known = [(found, m) for m in comparison.methods if (found := tables.value(m, column)) is not None]
    opening = "No target was set" if comparison.target is None else f"No method reached {_target(comparison)}"
    if not known:
        return f"{opening}, and no run went through."
    pick = max if column.better == "higher" else min
    best, method = pick(known, key=lambda pair: pair[0])
    kind = "the centralized baseline " if method.baseline else ""
    ending = f"{kind}{printable(method.name)} ended best, with {_score(comparison, best)} ({over})"
    return f"{opening}; after {comparison.rounds:,} rounds {ending}."


def _page(comparison: Comparison, series: list[Series]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    template = resources.files("decentral.measure").joinpath("report.html.j2").read_text(encoding="utf-8")
    failed = sum(run.failure is not None for method in comparison.methods for run in method.per_seed)
    return environment.from_string(template).render(
        comparison=comparison,
        summary=summary(comparison),
        failed=failed,
        runs=sum(len(method.per_seed) for method in comparison.methods),
        columns=tables.columns(comparison),
        rows=zip(tables.rows(comparison), series, strict=True),
        caption=tables.caption(comparison),
        curves=_curves(comparison, [one for one in series if one.failed]),
        graphs=_graphs(comparison),
        target=_target(comparison) if comparison.target is not None else None,
    )


def _curves(comparison: Comparison, series: list[Series]) -> list[dict[str, str]]:
    pairs = [("rounds", comparison.score), ("bytes", comparison.score), ("seconds", comparison.score)]
    pairs = [pair for pair in pairs if pair[0] != "seconds" or comparison.clock == "wall"]
    names = ", ".join(one.name for one in series)
    found = []
    for x, y in [*pairs, ("rounds", "consensus")]:
        title = f"{TITLES[y].capitalize()} against {TITLES[x].format(unit='bytes')}"
        target = comparison.target if y == comparison.score else None
        label = f"{title}; one line per method: {names}"
        drawing = curves_svg(series, x, y, prefix=f"{y}-{x}", label=label, target=target)
        found.append({"title": title, "svg": Markup(drawing)})
    return found


def _graphs(comparison: Comparison) -> list[dict[str, Any]]:
    found = []
    for position, (name, graph) in enumerate(comparison.topologies.items()):
        label = f"Graph {printable(name)}: {graph.nodes} nodes, {len(graph.edges)} edges"
        drawing = topology_svg(graph, prefix=f"graph-{position}", label=label)
        users = [printable(m.name) for m in comparison.methods if m.topology == name]
        thinned = len(graph.edges) > DRAWN_EDGES
        found.append({"name": printable(name), "of": graph, "svg": Markup(drawing), "users": users, "thinned": thinned})
    return found
