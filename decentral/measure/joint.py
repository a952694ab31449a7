"""Several comparisons in one table: a row a method, a column a comparison, in each cell the final score."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from decentral.errors import ConfigError
from decentral.measure import tables
from decentral.measure.comparison import DOCUMENT, Comparison, MethodResult
from decentral.measure.report import read_comparison, rendered, written
from decentral.measure.tables import Cell, Column, Row, printable
from decentral.measure.tuning_table import tuning_lines


@dataclass(frozen=True)
class Entry:
    """A method in a comparison: the score that counts, what it ranges over, and in words its other scores and rate."""

    cell: Cell
    notes: list[str]


@dataclass(frozen=True)
class Joint:
    """Some comparisons with the same score, by title, and the folder that all of theirs lie in."""

    folder: Path
    comparisons: Mapping[str, Comparison]

    @property
    def score(self) -> Column:
        """What the cells hold."""
        return self._scores[0]

    @property
    def _scores(self) -> list[Column]:
        return tables.SCORES[next(iter(self.comparisons.values())).score]

    def rows(self) -> list[tuple[str, bool, list[Entry | None]]]:
        """Of each method its name, whether it is a baseline, and an entry per comparison, None where it was not run."""
        called = [_by_name(comparison, self._graphs_matter) for comparison in self.comparisons.values()]
        shown = []
        for comparison in self.comparisons.values():
            pairs = zip(tables.ordered(comparison), tables.rows(comparison), strict=True)
            shown.append({method.name: _entry(row, self._scores) for method, row in pairs})
        names = {name: method.baseline for found in called for name, method in found.items()}
        return [
            (
                printable(name),
                baseline,
                [
                    cells[found[name].name] if name in found else None
                    for found, cells in zip(called, shown, strict=True)
                ],
            )
            for name, baseline in sorted(names.items(), key=lambda item: item[1])
        ]

    def document(self) -> list[dict[str, Any]]:
        """The same as bare numbers: for each method its scores, each with its range, and its rate per comparison."""
        found: dict[str, dict[str, Any]] = {}
        for title, comparison in self.comparisons.items():
            for name, method in _by_name(comparison, self._graphs_matter).items():
                numbers = {column.key: method.spread[column.key].model_dump() for column in self._scores}
                lr = method.tuning and method.tuning.lr
                found.setdefault(name, {"method": name})[title] = numbers | {"lr": lr}
        return list(found.values())

    @property
    def _graphs_matter(self) -> bool:
        """Whether methods of one comparison would share a name without their graphs."""
        counts = [Counter(_without_graph(m) for m in one.methods) for one in self.comparisons.values()]
        return any(count > 1 for each in counts for count in each.values())


def read_joint(folders: Sequence[Path]) -> Joint:
    """The comparisons of some run folders, each titled by its place under the folder that holds them all.

    Raises:
        ConfigError: a document cannot be read, a folder is given twice, or the scores are of two kinds.
    """
    whole = [folder.resolve() for folder in folders]
    common = Path(os.path.commonpath(whole))
    if common in whole or len(set(whole)) < len(whole):
        raise ConfigError("a run folder is given twice, or lies in another; give each comparison's own folder once")
    found = {str(folder.relative_to(common)): read_comparison(folder / DOCUMENT) for folder in whole}
    if len(scores := {one.score for one in found.values()}) > 1:
        raise ConfigError(f"the scores are {' and '.join(sorted(scores))}; one table needs comparisons with the same")
    return Joint(common, found)


def write_joint_report(joint: Joint) -> Path:
    """Writes `report.html` into the folder that all of the run folders lie in.

    Raises:
        ConfigError: it cannot be written.
    """
    notes = {title: tuning_lines(one) for title, one in joint.comparisons.items()}
    page = rendered("joint.html.j2", joint=joint, rows=joint.rows(), notes=notes, captions=_captions(joint))
    return written(joint.folder / "report.html", page)


def joint_table(joint: Joint) -> Table:
    """The table for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False, collapse_padding=True)
    table.title, table.title_justify = joint.score.title, "left"
    table.caption, table.caption_justify = Text("\n" + "\n".join(_captions(joint)), style="dim"), "left"
    table.add_column("Method", min_width=9, overflow="fold")
    for title in joint.comparisons:
        table.add_column(printable(title), justify="right", overflow="fold")
    for name, baseline, cells in joint.rows():
        row = Text(name)
        if baseline:
            row.append("\nbaseline", style="dim")
        table.add_row(row, *map(_terminal_cell, cells))
    return table


def _entry(row: Row, scores: Sequence[Column]) -> Entry:
    cell, *others = row.cells[: len(scores)]
    named = zip(scores[1:], others, strict=True)
    words = [f"{column.title.removesuffix(' accuracy').lower()} {other.text}" for column, other in named]
    return Entry(cell, [note for note in (*cell.spread.split("\n"), *words, row.rate) if note])


def _terminal_cell(found: Entry | None) -> Text:
    if found is None:
        return Text("not run", style="dim")
    text = Text(found.cell.text, style="bold green" if found.cell.best else "")
    text.append("".join(f"\n{note}" for note in found.notes), style="not bold dim default")
    return text


def _captions(joint: Joint) -> list[str]:
    """What the numbers of the cells are: one line where it is the same in all columns."""
    return list(dict.fromkeys(tables.caption(one) for one in joint.comparisons.values()))


def _by_name(comparison: Comparison, graphs_matter: bool) -> dict[str, MethodResult]:
    return {m.name if graphs_matter else _without_graph(m): m for m in comparison.methods}


def _without_graph(method: MethodResult) -> str:
    """`dsgd` for a method that was named `dsgd ring` after its graph; a label that was given stays."""
    graph = Path((method.topology or "").partition(" ")[0]).stem
    built = f"{method.algorithm} {graph}"
    return (
        method.algorithm + method.name.removeprefix(built) if graph and method.name.startswith(built) else method.name
    )
