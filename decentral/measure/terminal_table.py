"""The table of a comparison for a terminal."""

from rich import box
from rich.table import Table
from rich.text import Text

from decentral.measure.comparison import Comparison
from decentral.measure.prediction_table import prediction_table
from decentral.measure.tables import Cell, Row, caption, columns, link_of, notes, rows
from decentral.measure.tuning_table import tuning_lines

LEAST_NAME = 9
"""Columns of a terminal that a method's name takes at least."""
SPARE = 4
"""Beyond what all take at least, so that rich, which narrows the widest alike, does not cut off the last one."""


def comparison_table(comparison: Comparison, width: int = 80) -> Table:
    """The table for a terminal: medians, the seeds' range dimmed under each, the best of a column in green.

    Args:
        width: of the terminal; where that is little, each column of numbers is as narrow as its title.
    """
    body = rows(comparison)
    below = Text(f"\n{caption(comparison)}", style="dim")
    below.append("".join(f"\n{line}" for line in (*notes(comparison), *tuning_lines(comparison))))
    below.append("".join(f"\n{row.name}, {line}" for row in body for line in row.failures), style="red")
    titles = [column.title.replace("all-", "all-\n") for column in columns(comparison)]
    least = [max(map(len, title.split())) for title in titles]
    is_tight = LEAST_NAME + sum(2 + each for each in least) + SPARE > width
    table = _table(below, is_tight)
    if comparison.network is not None:
        table.title, table.title_justify = f"network lab: {link_of(comparison.network)}", "left"
    rest = max(LEAST_NAME, width - sum(1 + each for each in least))
    table.add_column("Method", min_width=LEAST_NAME, max_width=rest if is_tight else None, overflow="fold")
    for title, narrowest in zip(titles, least, strict=True):
        fixed = narrowest if is_tight else None
        table.add_column(title, justify="right", min_width=narrowest, width=fixed, overflow="fold")
    for row in body:
        table.add_row(_terminal_name(row), *map(_terminal_cell, row.cells))
    return table


def predicted_table(comparison: Comparison) -> Table | None:
    """What was predicted beside what was measured, for a terminal; None where nothing was predicted."""
    if (found := prediction_table(comparison)) is None:
        return None
    table = _table(Text(f"\n{found.caption}", style="dim"))
    table.add_column("Method", min_width=LEAST_NAME, overflow="fold")
    for title in found.titles:
        table.add_column(title, justify="right")
    for name, cells in found.rows:
        table.add_row(Text(name), *cells)
    return table


def _table(caption: Text, is_tight: bool = False) -> Table:
    """A table without columns, with what stands under it."""
    padding = (0, 0, 0, 0 if is_tight else 1)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=padding, pad_edge=False, collapse_padding=True)
    table.caption, table.caption_justify = caption, "left"
    return table


def _terminal_name(row: Row) -> Text:
    text = Text(row.name)
    if row.rate:
        text.append(f"\n{row.rate}", style="dim")
    if row.baseline:
        text.append("\nbaseline", style="dim")
    if row.failed:
        text.append(f"\n{row.failed}", style="red")
    return text


def _terminal_cell(cell: Cell) -> Text:
    text = Text(cell.text, style="bold green" if cell.best else "")
    if cell.spread:
        text.append(f"\n{cell.spread}", style="not bold dim default")
    return text
