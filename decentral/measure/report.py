"""The page of a comparison: one HTML file that stands alone, made from the folder that `decentral speedup` wrote."""

import json
import math
from contextlib import suppress
from importlib import resources
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError

from decentral.errors import ConfigError
from decentral.measure import tables
from decentral.measure.atomic import write_atomically
from decentral.measure.comparison import DOCUMENT, Comparison, Evaluation, MethodResult, SeedResult
from decentral.measure.figures import DRAWN_EDGES, DRAWN_NODES, TITLES, Series, curves_svg, topology_svg
from decentral.measure.pace_section import pace_section
from decentral.measure.prediction_table import prediction_table
from decentral.measure.repulsion import repulsions
from decentral.measure.tables import printable
from decentral.measure.tuning_table import tuning_lines, tuning_table

COLORS = ("#3b82d6", "#d9730d", "#2e9e5b", "#9b5de5", "#d6456b", "#1a9ba8", "#a67c00", "#c04fc0")
BASELINE_COLORS = ("#7c8694", "#a87a58", "#5f8f8a")
BASELINES = {"allreduce": ("all-reduce", "speedup_vs_allreduce"), "ddp": ("DDP", "speedup_vs_ddp")}
BETWEEN = ("heterogeneity", "diversity", "disagreement", "spread")
WRITES = "what a finished `speedup`, `train` or `simulate` writes; give the whole folder of one that went through"


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a comparison's folder, whole or not at all.

    Args:
        folder: holds the `Comparison`, and for each run a folder with `metrics.jsonl`.

    Returns:
        The page's path.

    Raises:
        ConfigError: a file is missing, torn or foreign, or the page cannot be written.
    """
    comparison = read_comparison(folder / DOCUMENT)
    return written(folder / "report.html", _page(comparison, _every_series(folder, comparison)))


def written(path: Path, page: str) -> Path:
    """The path, where the page now stands, whole.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); make room or give it permission") from error
    return path


def read_comparison(path: Path) -> Comparison:
    """The document of a comparison; a ConfigError where there is none, or it is not what `decentral speedup` writes."""
    try:
        return Comparison.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise _unreadable(str(path), error) from error


def read_run(path: Path) -> list[Evaluation]:
    """The evaluations of one run; a last line cut short by a crash does not count.

    Raises:
        ConfigError: there is no such file, or one of its lines is not an `Evaluation`.
    """
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise _unreadable(str(path), error) from error
    with suppress(ValueError):
        json.loads(rest)
        lines.append(rest)
    return [_evaluation(f"{path}:{number}", line) for number, line in enumerate(lines, start=1)]


def summary(comparison: Comparison) -> str:
    """Who reached the target first and how that compares with both baselines, whoever wins."""
    first = _leader(comparison, comparison.methods)
    gossip = _leader(comparison, [method for method in comparison.methods if not method.baseline])
    if first is None:
        return _without_target(comparison)
    opening = f"{printable(first.name)} reached {_target(comparison)} first, in {_cost(first, comparison)}"
    if first is gossip:
        return f"{opening}: {_against(first, comparison)}."
    if gossip is None:
        return f"The centralized baseline {opening}; no decentralized method reached it."
    behind = f"the fastest decentralized method, {printable(gossip.name)}, took {_cost(gossip, comparison)}"
    return f"The centralized baseline {opening}; {behind}: {_against(gossip, comparison)}."


def _unreadable(where: str, error: OSError | ValidationError) -> ConfigError:
    if isinstance(error, OSError):
        found = f"cannot be read ({error.strerror})"
    else:
        first = error.errors()[0]
        found = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return ConfigError(f"{where}: {found}; expected {WRITES}")


def _evaluation(where: str, line: bytes) -> Evaluation:
    try:
        return Evaluation.model_validate_json(line)
    except ValidationError as error:
        raise _unreadable(where, error) from error


def _every_series(folder: Path, comparison: Comparison) -> list[Series]:
    """In the table's order, with neutral tones for baselines and colors for the others."""
    found, palettes = [], {False: cycle(COLORS), True: cycle(BASELINE_COLORS)}
    for method, marker in zip(tables.ordered(comparison), cycle("osD^vPpXhd"), strict=False):
        found.append(_series(folder, method, next(palettes[method.baseline]), marker))
    return found


def _series(folder: Path, method: MethodResult, color: str, marker: str) -> Series:
    runs = [_evaluations_of(folder, run) for run in method.per_seed]
    # In free runs `round` is a mean, another one for each seed: there the evaluations of one number belong together.
    is_free = any(one.free_run for run in runs for one in run)
    turns = [[k if is_free else one.round for k, one in enumerate(run)] for run in runs]
    column = {turn: k for k, turn in enumerate(sorted({turn for each in turns for turn in each}))}
    values = {key: np.full((len(runs), len(column)), np.nan) for key in TITLES}
    for seed, run in enumerate(runs):
        for turn, evaluation in zip(turns[seed], run, strict=True):
            for key, number in _measured(evaluation, method.steps_per_round).items():
                values[key][seed, column[turn]] = math.nan if number is None else number
    failed = tuple(run.failure is not None for run in method.per_seed)
    return Series(printable(method.name), color, marker, method.baseline, values, failed)


def _evaluations_of(folder: Path, run: SeedResult) -> list[Evaluation]:
    path = folder / run.folder / "metrics.jsonl"
    if Path(run.folder).is_absolute() or ".." in Path(run.folder).parts:
        raise ConfigError(f"{folder / DOCUMENT}: run folder {run.folder!r} lies outside; expected {WRITES}")
    found = [] if run.failure is not None and not path.exists() else read_run(path)
    if not found and run.failure is None:
        raise ConfigError(f"{path}: holds no evaluation, yet the run went through; expected {WRITES}")
    return found


def _measured(evaluation: Evaluation, steps_per_round: int | None) -> dict[str, float | None]:
    spread, accuracy = evaluation.accuracy_spread, evaluation.accuracy
    return {
        "rounds": evaluation.round,
        "steps": None if steps_per_round is None else evaluation.round * steps_per_round,
        "bytes": evaluation.bytes_per_node if evaluation.living else None,
        "seconds": evaluation.seconds,
        "accuracy": accuracy,
        "error": None if accuracy is None else 1 - accuracy,
        "test_loss": evaluation.test_loss,
        "consensus": evaluation.consensus_distance,
        "heterogeneity": evaluation.heterogeneity,
        "diversity": evaluation.gradient_diversity,
        "disagreement": evaluation.disagreement,
        "spread": None if spread is None else spread.max - spread.min,
    }


def _leader(comparison: Comparison, methods: list[MethodResult]) -> MethodResult | None:
    """Who of some methods needed the least to reach the target."""
    there = [method for method in methods if math.isfinite(tables.cost(method, comparison))]
    return min(there, key=lambda method: tables.cost(method, comparison), default=None)


def _score(comparison: Comparison, value: float) -> str:
    said = f"{tables.said(tables.in_percent, value)} test accuracy"
    return said if comparison.score == "accuracy" else f"test loss {tables.said(tables.in_loss, value)}"


def _target(comparison: Comparison) -> str:
    return "no target" if comparison.target is None else f"the target of {_score(comparison, comparison.target)}"


def _cost(method: MethodResult, comparison: Comparison) -> str:
    timed = comparison.clock != "none"
    seconds, rounds = method.seconds_to_target, method.rounds_to_target
    text = tables.said(tables.in_seconds, seconds) if timed else f"{tables.said(tables.in_rounds, rounds)} rounds"
    return text + (f" ({failed})" if (failed := tables.failed(method)) else "")


def _against(method: MethodResult, comparison: Comparison) -> str:
    """How a method compares with each baseline, in words."""
    found = []
    for algorithm, (name, key) in BASELINES.items():
        baseline = next((m for m in comparison.methods if m.baseline and m.algorithm == algorithm), None)
        speedup = getattr(method, key)
        if baseline is None:
            found.append(f"{name} was not run")
        elif baseline.rounds_to_target is None:
            found.append(f"{name} did not reach it")
        elif speedup is None:
            found.append(f"{name} took {_cost(baseline, comparison)}")
        else:
            over = tables.ranged(tables.in_times, [getattr(run, key) for run in method.per_seed], "without")
            text = f"{tables.said(tables.in_times, speedup)} as fast as {name}"
            found.append(f"{text} (seeds: {over.replace(chr(10), ', ')})" if over else text)
    return ", and ".join(found)


def _without_target(comparison: Comparison) -> str:
    column = tables.columns(comparison)[0]
    known = [(found, m) for m in comparison.methods if (found := tables.value(m, column)) is not None]
    opening = "No target was set" if comparison.target is None else f"No method reached {_target(comparison)}"
    if not known:
        return f"{opening}, and no run went through."
    best, method = (max if column.better == "higher" else min)(known, key=lambda pair: pair[0])
    name = f"the centralized baseline {printable(method.name)}" if method.baseline else printable(method.name)
    is_free = any(method.staleness_counts for method in comparison.methods)
    when = "at the end of all runs" if is_free else f"after {comparison.rounds:,} rounds"
    return f"{opening}; {when} {name} was best, with {_score(comparison, best)}."


def _page(comparison: Comparison, series: list[Series]) -> str:
    return rendered(
        "report.html.j2",
        comparison=comparison,
        summary=summary(comparison),
        failed=[failed for one in series for failed in one.failed],
        columns=tables.columns(comparison),
        rows=list(zip(tables.rows(comparison), series, strict=True)),
        caption=" ".join([tables.caption(comparison), *tables.notes(comparison)]),
        prediction=prediction_table(comparison),
        tuning=tuning_table(comparison),
        tuning_lines=tuning_lines(comparison),
        curves=_curves(comparison, series),
        between=_between(series),
        pace=pace_section(comparison, series),
        repulsions=repulsions(comparison, series),
        graphs=_graphs(comparison),
        target=_target(comparison),
        link=None if comparison.network is None else tables.link_of(comparison.network),
    )


def rendered(template: str, **values: Any) -> str:
    """A page of this package, in the style of its reports."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    page, style = (
        resources.files("decentral.measure").joinpath(name).read_text(encoding="utf-8")
        for name in (template, "report.css")
    )
    return environment.from_string(page).render(style=Markup(style), **values)


def _curves(comparison: Comparison, series: list[Series]) -> list[dict[str, str]]:
    score = comparison.score
    pairs = [("rounds", score), ("bytes", score), ("seconds", score), ("rounds", "consensus")]
    if len({method.steps_per_round for method in comparison.methods if method.steps_per_round}) > 1:
        # A round of theirs is another number of steps, so they are compared by these, and by errors on a log axis.
        pairs += [("steps", "error"), ("bytes", "error")] if score == "accuracy" else [("steps", score)]
    found = []
    for x, y in pairs:
        if x == "seconds" and comparison.clock == "none":
            continue
        title = f"{TITLES[y].capitalize()} against {TITLES[x].format(unit='bytes')}"
        label = f"{title}; one line per method: {', '.join(one.name for one in series)}"
        target = comparison.target if y == score else None
        drawing = curves_svg(series, x, y, prefix=f"{y}-{x}", label=label, target=target)
        found.append({"title": title, "svg": Markup(drawing)})
    return found


def _between(series: list[Series]) -> list[dict[str, str]]:
    """What nodes have in common, where it was recorded: small figures under the curves' legend."""
    found = []
    for key in BETWEEN:
        # A quantity that is zero in every run, as in one of all-reduce alone, has nothing to show.
        if any((np.nan_to_num(one.values[key]) > 0).any() for one in series):
            label = f"{TITLES[key].capitalize()} against rounds; one line per method, with the colors of the table"
            drawing = curves_svg(series, "rounds", key, prefix=f"{key}-rounds", label=label, small=True)
            found.append({"title": TITLES[key].capitalize(), "svg": Markup(drawing)})
    return found


def _graphs(comparison: Comparison) -> list[dict[str, Any]]:
    found = []
    for position, (name, graph) in enumerate(comparison.topologies.items()):
        label = f"Graph {printable(name)}: {graph.nodes} nodes, {len(graph.edges)} edges"
        drawable = graph.nodes <= DRAWN_NODES
        drawing = topology_svg(graph, prefix=f"graph-{position}", label=label) if drawable else ""
        users = [printable(m.name) for m in comparison.methods if m.topology == name]
        thinned = drawable and len(graph.edges) > DRAWN_EDGES
        found.append({"name": printable(name), "of": graph, "svg": Markup(drawing), "users": users, "thinned": thinned})
    return found
