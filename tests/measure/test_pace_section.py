"""The column of paces, and the report's section on pace and staleness, on made-up numbers."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

from decentral.algorithms import ASYNCHRONOUS_METHODS, HUB_METHODS
from decentral.algorithms.asynchronous import OLDEST as PLACES
from decentral.measure import report
from decentral.measure.comparison import DOCUMENT, Comparison
from decentral.measure.pace import pace_of
from decentral.measure.pace_figures import OLDEST
from decentral.measure.tables import columns, plain_rows, rows
from tests.measure.test_report import ALLREDUCE, DDP, HOSTILE, Sketch, checked, printed, write_comparison

SWIFT, PAIRS, HUB = ASYNCHRONOUS_METHODS["swift"], ASYNCHRONOUS_METHODS["ad-psgd"], HUB_METHODS["async-sgd"]
FRESH: list[list[int]] = [[8, 2], [6], [0, 3, 1], [10]]
SKETCHES = [Sketch("swift", "swift", "ring"), Sketch("dsgd", "dsgd", "ring"), ALLREDUCE, DDP]
SLOWED = {"swift": [5.0, 4.0, 0.5, 6.0], "dsgd": [0.5] * 4, "allreduce": [0.4] * 4, "ddp": [0.45] * 4}


def told(
    folder: Path,
    paces: dict[str, Any] = SLOWED,
    staleness: dict[str, Any] | None = None,
    counts: dict[str, str | None] | None = None,
    sketches: list[Sketch] = SKETCHES,
    **changes: Any,
) -> Comparison:
    """A comparison of four nodes whose methods have these paces and staleness."""
    staleness = {"swift": FRESH} if staleness is None else staleness
    counts = {"swift": SWIFT.staleness_counts} if counts is None else counts
    plain = write_comparison(folder, sketches, nodes=4, seeds=[0], **changes)
    methods = []
    for method in plain.methods:
        new = {"steps_per_second": paces.get(method.name), "staleness": staleness.get(method.name)}
        runs = [run.model_copy(update=new) for run in method.per_seed]
        found = {"per_seed": runs, "pace": pace_of(runs), "staleness_counts": counts.get(method.name)}
        methods.append(method.model_copy(update=found))
    comparison = plain.model_copy(update={"methods": methods})
    (folder / DOCUMENT).write_text(comparison.model_dump_json())
    return comparison


@pytest.fixture(autouse=True)
def without_other_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the tests."""
    for name in ("_curves", "_between", "_graphs"):
        monkeypatch.setattr(report, name, lambda *_: [])


def section(page: str) -> str:
    return page.partition('id="pace"')[2].partition("</section>")[0]


def labels(page: str) -> list[str]:
    return [html.unescape(label) for label in re.findall(r'aria-label="([^"]*)"', section(page))]


def test_who_cannot_see_the_pictures_hears_the_numbers(tmp_path: Path) -> None:
    paces, staleness = labels(checked(tmp_path, told(tmp_path)))
    assert "swift: slowest node 2 with 0.50, median 4.50, fastest 6.00" in paces
    assert "ddp: slowest node 0 with 0.45, median 0.45, fastest 0.45" in paces
    assert "swift: 80.0% of staleness 0, median 0, 95% at most 1, oldest 2" in staleness
    assert "dsgd" not in staleness


def test_the_slowest_node_is_named_in_the_picture_where_it_stands_out(tmp_path: Path) -> None:
    found = section(checked(tmp_path, told(tmp_path)))
    assert re.findall(r">(node \d: [\d.]+)<", found) == ["node 2: 0.50"]
    assert "steps per second of each node, log scale" in found
    near = section(checked(tmp_path / "near", told(tmp_path / "near", {"swift": [5.0, 4.5, 5.0, 6.0]})))
    assert not re.findall(r">(node \d: [\d.]+)<", near)
    assert "log scale<" in near.partition("Staleness of what")[2]
    assert "log scale<" not in near.partition("Staleness of what")[0]


def test_what_staleness_counts_is_said_for_each_method(tmp_path: Path) -> None:
    alone = section(checked(tmp_path / "one", told(tmp_path / "one")))
    assert "It counts a node&#39;s own steps since it came." in alone
    sketches = [
        SKETCHES[0],
        Sketch("pairs", "ad-psgd", "ring", rate=0.02),
        Sketch("hub", "async-sgd", "ring", rate=0.01),
    ]
    kinds = {"swift": SWIFT.staleness_counts, "pairs": PAIRS.staleness_counts, "hub": HUB.staleness_counts}
    ages = {"swift": FRESH, "pairs": FRESH, "hub": [[1, 2, 3], [], [], []]}
    paces = dict.fromkeys(kinds, SLOWED["swift"])
    found = html.unescape(section(checked(tmp_path, told(tmp_path, paces, ages, kinds, sketches))))
    for name, counts in kinds.items():
        assert f"in {name} {counts}" in found
    assert "Node 0 of hub serves the\nothers" in found


CASES: dict[str, dict[str, Any]] = {
    "a node made no step": {"paces": SLOWED | {"swift": [0.0, 1.0, 2.0, 3.0]}},
    "a node died": {"paces": SLOWED | {"swift": [None, 1.0, 2.0, 3.0], "dsgd": [None] * 4}},
    "nothing was used": {"staleness": {"swift": [[]] * 4}},
    "failed": {"paces": {}, "staleness": {}},
    "very old": {"staleness": {"swift": [[0] * 127 + [3]] * 4}},
    "hostile": {
        "sketches": [Sketch(HOSTILE, "swift", "ring")],
        "counts": {HOSTILE: HOSTILE},
        "paces": {HOSTILE: [1.0] * 4},
    },
    "no clock": {"clock": "none", "paces": {}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_page_stays_whole(case: str, tmp_path: Path) -> None:
    found = section(checked(tmp_path, told(tmp_path, **CASES[case])))
    assert ("No run went through" in found) == (case in ("failed", "no clock"))
    assert ("No node has used anything" in found) == (case in ("nothing was used", "failed", "hostile"))
    assert (">127+<" in found) == (case == "very old")
    assert "nan" not in found


def test_ordinary_comparisons_have_neither_column_nor_section(tmp_path: Path) -> None:
    paces = {name: [2.0] * 4 for name in SLOWED}
    alike = told(tmp_path, paces, staleness={}, counts={})
    assert "Steps per second" not in checked(tmp_path, alike) + printed(alike, 140)
    assert "steps_per_second" not in {column.key for column in columns(alike)}
    made_unequal = told(tmp_path / "slow", paces, staleness={}, counts={}, unequal=True)
    page = checked(tmp_path / "slow", made_unequal)
    assert "steps_per_second" in {column.key for column in columns(made_unequal)}
    assert 'id="pace"' not in page, "in rounds alone there is nothing to draw"
    without = told(tmp_path / "none", {}, staleness={}, counts={}, unequal=True)
    assert "steps_per_second" not in {column.key for column in columns(without)}


@pytest.mark.parametrize("width", [76, 80, 83, 100, 140])
def test_the_table_has_the_median_node_and_under_it_the_slowest_and_the_fastest(width: int, tmp_path: Path) -> None:
    comparison = told(tmp_path)
    cells = {row.name: row.cells[-1] for row in rows(comparison)}
    assert (cells["swift"].text, cells["swift"].spread) == ("4.50", "0.50 – 6.00")
    assert (cells["dsgd"].text, cells["dsgd"].spread) == ("0.50", "")
    assert not any(cell.best for cell in cells.values()), "more steps are no merit"
    assert {row["method"]: row["steps_per_second"] for row in plain_rows(comparison)}["swift"] == 4.5
    lines = printed(comparison, width).splitlines()
    assert max(map(len, lines)) <= width
    for cell in cells.values():
        assert any(line.rstrip().endswith(f" {cell.text}") for line in lines), "the last column is not cut off"
    assert "under them the slowest's" in " ".join(" ".join(lines).split())


def test_the_last_place_of_a_histogram_is_the_one_that_methods_fill() -> None:
    assert PLACES - 1 == OLDEST
    every = {**ASYNCHRONOUS_METHODS, **HUB_METHODS}
    assert all(method.staleness_counts for method in every.values())
