"""The table of a comparison, said once: columns, units and cells, for the page and for the terminal."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from decentral.measure.comparison import Comparison, MethodResult, Network

Quantity = Callable[[float], tuple[str, str]]
"""From a value to its digits and its unit, which brings its own leading space."""

NOT_REACHED = "not reached"
NONE = "none"


def in_bytes(value: float) -> tuple[str, str]:
    scale, unit = byte_unit(value)
    return (f"{value / scale:.1f}" if scale > 1 else f"{value:.0f}"), f" {unit}"


def byte_unit(largest: float) -> tuple[float, str]:
    """The decimal unit in which `largest` has one to three digits, as (bytes, name)."""
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(largest) >= 0.99995 * scale:
            return scale, unit
    return 1.0, "B"


def in_seconds(value: float) -> tuple[str, str]:
    if value and abs(value) < 0.0995:
        return f"{1e3 * value:.3g}", " ms"
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{decimals}f}", " s"


def in_rounds(value: float) -> tuple[str, str]:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}", ""


def in_percent(value: float) -> tuple[str, str]:
    return f"{100 * value:.1f}", "%"


def in_loss(value: float) -> tuple[str, str]:
    return f"{value:.4g}", ""


def in_times(value: float) -> tuple[str, str]:
    return f"{value:.2f}" if value < 9.995 else f"{value:,.1f}", "x"


def in_rate(value: float) -> tuple[str, str]:
    return (f"{value:.3g}" if 0 < value < 0.0995 else in_seconds(value)[0]), ""


def said(quantity: Quantity, value: float | None, missing: str = NONE) -> str:
    """A value with its unit, such as `12.3 MB`, or `missing` where there is none."""
    return missing if value is None else "".join(quantity(value))


def ranged(quantity: Quantity, values: Sequence[float | None], missing: str = NONE) -> str:
    """`1.2 – 3.4` and on a second line `1 not reached`; empty where all seeds say the same."""
    known = sorted(value for value in values if value is not None)
    if not known or (known[0] == known[-1] and len(known) == len(values)):
        return ""
    ends = list(dict.fromkeys([known[0], known[-1]]))
    units = {quantity(value)[1] for value in known}
    text = " – ".join(quantity(end)[0] if len(units) == 1 else said(quantity, end) for end in ends)
    lacking = len(values) - len(known)
    return f"{text}\n{lacking} {missing}" if lacking else text


def tick(value: float, *, percent: bool) -> str:
    """A number on an axis, without its unit: `2,000`, `0.05`, `3·10⁻⁷`, or `85%`."""
    if percent:
        return f"{100 * value:.4g}%"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    digits, power = f"{value:.0e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digits == "1" else f"{digits}·10{raised}"


def printable(text: str) -> str:
    """`text` with control characters, which neither XML nor a terminal should see, replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


@dataclass(frozen=True)
class Column:
    """One number of `MethodResult`, by its field's name."""

    key: str
    title: str
    quantity: Quantity
    better: Literal["higher", "lower"] | None
    """None where neither is what one would want."""
    missing: str = NONE
    under: Callable[[MethodResult], str] | None = None
    """What stands under a median, where that is not what the seeds range over."""
    note: str = ""
    """A sentence for the caption."""


@dataclass(frozen=True)
class Cell:
    """A median over the seeds, and under it what the seeds range over, or what the column has there."""

    text: str
    spread: str
    best: bool


@dataclass(frozen=True)
class Row:
    """One method: name and rate, one cell per column, how many seeds failed, and a line for each with the reason."""

    name: str
    rate: str
    baseline: bool
    cells: list[Cell]
    failed: str
    failures: list[str]


SCORES = {
    "accuracy": [
        Column("final_accuracy", "Final accuracy", in_percent, "higher"),
        Column("worst_node_accuracy", "Worst node accuracy", in_percent, "higher"),
    ],
    "test_loss": [Column("final_test_loss", "Final test loss", in_loss, "lower")],
}
TO_TARGET = [
    Column("rounds_to_target", "Rounds to target", in_rounds, "lower", NOT_REACHED),
    Column("bytes_to_target", "Bytes to target", in_bytes, "lower", NOT_REACHED),
    Column("seconds_to_target", "Seconds to target", in_seconds, "lower", NOT_REACHED),
    Column("speedup_vs_allreduce", "Speed-up vs all-reduce", in_times, "higher"),
    Column("speedup_vs_ddp", "Speed-up vs DDP", in_times, "higher"),
]
WHOLE_RUN = [
    Column("bytes_per_node", "Bytes sent per node", in_bytes, "lower"),
    Column("seconds", "Seconds in all", in_seconds, "lower"),
]
NEEDS_A_CLOCK = {"seconds_to_target", "speedup_vs_allreduce", "speedup_vs_ddp", "seconds"}


def of_all_nodes(method: MethodResult) -> str:
    """`0.50 – 4.97`: steps per second of the slowest node and of the fastest; empty where that is the same."""
    return "" if method.pace is None else ranged(in_rate, [method.pace.slowest, method.pace.fastest])


PACE = Column(
    "steps_per_second",
    "Steps per second",
    in_rate,
    None,
    under=of_all_nodes,
    note="Steps per second are the median node's, and under them the slowest's and the fastest's.",
)


def columns(comparison: Comparison) -> list[Column]:
    """What this comparison can say: costs to the target if it has one, times if it had a clock, paces if unequal."""
    every = SCORES[comparison.score] + (WHOLE_RUN if comparison.target is None else TO_TARGET)
    told = [column for column in every if comparison.clock != "none" or column.key not in NEEDS_A_CLOCK]
    return told + ([PACE] if has_paces(comparison) else [])


def has_paces(comparison: Comparison) -> bool:
    """Whether the nodes were made unequally fast, or some method lets each go on at its own pace."""
    unequal = comparison.unequal or any(method.staleness_counts for method in comparison.methods)
    return unequal and any(method.pace is not None for method in comparison.methods)


def ordered(comparison: Comparison) -> list[MethodResult]:
    """Decentralized methods, then baselines: each from the first at the target to the last, then by the final score.

    The target's cost is in seconds, or in rounds where the seconds say nothing.
    """
    return sorted(comparison.methods, key=lambda method: (method.baseline, cost(method, comparison), _loss(method)))


def cost(method: MethodResult, comparison: Comparison) -> float:
    """Of reaching the target, in seconds, or in rounds where the seconds say nothing; infinite where it was not."""
    found = method.seconds_to_target if comparison.clock != "none" else method.rounds_to_target
    return math.inf if found is None else found


def _loss(method: MethodResult) -> float:
    """The less, the better it ended."""
    if method.final_accuracy is not None:
        return -method.final_accuracy
    return math.inf if method.final_test_loss is None else method.final_test_loss


def value(method: MethodResult, column: Column) -> float | None:
    found: float | None = getattr(method, column.key)
    return found


def seeds_of(method: MethodResult, column: Column) -> list[float | None]:
    """The number that each seed gave to the median."""
    return [getattr(run, column.key) for run in method.per_seed]


def failed(method: MethodResult) -> str:
    """`1 of 3 seeds diverged`; empty where all went through."""
    count = sum(run.failure is not None for run in method.per_seed)
    return f"{count} of {len(method.per_seed)} seeds {verdict(method)}" if count else ""


def verdict(method: MethodResult) -> str:
    """`diverged` or `failed` where a run ended early, else `none`."""
    failures = [run.failure for run in method.per_seed if run.failure is not None]
    if not failures:
        return NONE
    return "diverged" if all("diverged" in failure for failure in failures) else "failed"


def rate_of(method: MethodResult) -> str:
    """`lr 0.3, the highest of the grid`: what was tuned; empty where the rate is the file's."""
    if (tuning := method.tuning) is None:
        return ""
    if all(candidate.failure for candidate in tuning.candidates):
        return f"lr {tuning.lr:g}; all of the grid diverged"
    return f"lr {tuning.lr:g}" + (f", the {tuning.edge} of the grid" if tuning.edge else "")


def rows(comparison: Comparison) -> list[Row]:
    """The table's body, in the order of `ordered`."""
    shown = columns(comparison)
    bests = [_best(comparison.methods, column) for column in shown]
    return [_row(method, shown, bests) for method in ordered(comparison)]


def plain_rows(comparison: Comparison) -> list[dict[str, str | float | None]]:
    """The same table as bare numbers: per method its name and each column's median, in base units."""
    shown = columns(comparison)
    rates = {m.name: {"lr": m.tuning.lr} if m.tuning else {} for m in comparison.methods}
    return [{"method": m.name, **rates[m.name], **{c.key: value(m, c) for c in shown}} for m in ordered(comparison)]


def link_of(network: Network) -> str:
    """`4 hosts, 100 Mbit/s each way, 10 ms one way`."""
    parts = [f"{network.hosts} hosts"]
    parts += [] if network.rate_bit_s is None else [f"{network.rate_bit_s / 1e6:g} Mbit/s each way"]
    parts += [] if network.latency_s is None else [f"{1e3 * network.latency_s:g} ms one way"]
    parts += [] if network.jitter_s is None else [f"jitter {1e3 * network.jitter_s:g} ms"]
    parts += [] if network.loss is None else [f"{100 * network.loss:g}% of packets lost"]
    return ", ".join(parts)


def caption(comparison: Comparison) -> str:
    """What the numbers of a cell are."""
    seeds = len(comparison.seeds)
    if seeds == 1:
        return "One seed: no spread can be given."
    return f"Median of {seeds} seeds; under it what they range over, and how many have no number."


def notes(comparison: Comparison) -> list[str]:
    """What the caption says of single columns."""
    return [column.note for column in columns(comparison) if column.note]


def _best(methods: list[MethodResult], column: Column) -> float | None:
    """The value that wins a column; none where nobody is ahead of anybody."""
    known = [found for method in methods if (found := value(method, column)) is not None]
    if len(set(known)) < 2 or column.better is None:
        return None
    return max(known) if column.better == "higher" else min(known)


def _row(method: MethodResult, shown: list[Column], bests: list[float | None]) -> Row:
    cells = [_cell(method, column, best) for column, best in zip(shown, bests, strict=True)]
    failures = [f"seed {run.seed}: {printable(run.failure)}" for run in method.per_seed if run.failure is not None]
    return Row(printable(method.name), rate_of(method), method.baseline, cells, failed(method), failures)


def _cell(method: MethodResult, column: Column, best: float | None) -> Cell:
    found = value(method, column)
    missing = verdict(method) if column.key.startswith(("final_", "worst_")) else column.missing
    under = column.under(method) if column.under else ranged(column.quantity, seeds_of(method, column), missing)
    return Cell(said(column.quantity, found, missing), under, found is not None and found == best)
