"""The report's section on runs without rounds: how fast each node got on, and how stale what it used was."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from decentral.measure import tables
from decentral.measure.comparison import Comparison, MethodResult, SeedResult
from decentral.measure.figures import Floats, Series
from decentral.measure.pace_figures import OLDEST, Went, paces_svg, staleness_svg
from decentral.measure.tables import in_percent, in_rate, printable, said


@dataclass(frozen=True)
class Section:
    """Its pictures, either one empty where there is nothing to draw."""

    paces: Markup
    staleness: Markup
    counts: str
    """What staleness counts, and for which methods where that differs."""
    hubs: list[str]
    """Methods of which node 0 alone uses what others send."""
    oldest: int = OLDEST


def pace_section(comparison: Comparison, series: Sequence[Series]) -> Section | None:
    """The section; None where no method runs without rounds.

    Args:
        series: of the comparison's methods, as ordered in the table.
    """
    methods = tables.ordered(comparison)
    free = [method for method in methods if method.staleness_counts]
    if not free:
        return None
    every = [_went(method, one) for method, one in zip(methods, series, strict=True)]
    paced = [one for one in every if np.isfinite(one.paces).any()]
    using = [one for one in every if one.uses.any()]
    return Section(
        paces=Markup(paces_svg(paced, prefix="paces", label=_paces_label(paced)) if paced else ""),
        staleness=Markup(staleness_svg(using, prefix="staleness", label=_staleness_label(using)) if using else ""),
        counts=_counts(free),
        hubs=[printable(method.name) for method in free if _is_served(method)],
    )


def _went(method: MethodResult, one: Series) -> Went:
    return Went(one.name, one.color, one.marker, _paces(method.per_seed), _uses(method.per_seed))


def _paces(runs: Sequence[SeedResult]) -> Floats:
    """(nodes,), the median over the seeds; NaN for nodes that have none in any."""
    known = [run.steps_per_second for run in runs if run.steps_per_second is not None]
    if not known:
        return np.full(1, np.nan)
    by_node = [[pace for pace in paces if pace is not None] for paces in zip(*known, strict=True)]
    return np.array([np.median(paces) if paces else np.nan for paces in by_node])


def _uses(runs: Sequence[SeedResult]) -> Floats:
    """(ages,), all nodes and seeds together."""
    histograms = [histogram for run in runs for histogram in run.staleness or ()]
    total = np.zeros(max(map(len, histograms), default=0))
    for each in histograms:
        total[: len(each)] += each
    return total


def _is_served(method: MethodResult) -> bool:
    found = [run.staleness for run in method.per_seed if run.staleness is not None]
    return any(nodes[0] for nodes in found) and not any(others for nodes in found for others in nodes[1:])


def _counts(methods: Sequence[MethodResult]) -> str:
    users: dict[str, list[str]] = {}
    for method in methods:
        users.setdefault(printable(method.staleness_counts or ""), []).append(printable(method.name))
    if len(users) == 1:
        return next(iter(users))
    return "; ".join(f"in {', '.join(names)} {text}" for text, names in users.items())


def _paces_label(every: Sequence[Went]) -> str:
    rows = []
    for one in every:
        low, middle, high = np.nanquantile(one.paces, (0, 0.5, 1))
        slowest = f"slowest node {one.slowest} with {said(in_rate, low)}"
        rows.append(f"{one.name}: {slowest}, median {said(in_rate, middle)}, fastest {said(in_rate, high)}")
    return f"Steps per second of each node, one row per method. {'; '.join(rows)}"


def _staleness_label(every: Sequence[Went]) -> str:
    rows = []
    for one in every:
        middle, most = np.searchsorted(np.cumsum(one.uses), np.array([0.5, 0.95]) * one.uses.sum())
        aged = f"median {middle}, 95% at most {most}, oldest {len(one.uses) - 1}"
        rows.append(f"{one.name}: {said(in_percent, float(one.shares[0]))} of staleness 0, {aged}")
    return f"Share of uses by staleness, one line per method. {'; '.join(rows)}"
