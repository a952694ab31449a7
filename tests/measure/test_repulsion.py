"""The report of walks: errors against visits and bytes, and what alpha gains beside the formula."""

import re
from pathlib import Path

import networkx as nx

from decentral.measure.comparison import DOCUMENT, Comparison, Repelled
from decentral.measure.figures import Series
from decentral.measure.report import write_report
from decentral.measure.repulsion import repulsions
from tests.measure.test_report import Sketch, of, write_comparison

WALKS = [Sketch("alpha 5", "sa-srrw", "karate", rate=0.03), Sketch("alpha 0", "sa-srrw", "karate")]
GOSSIP = Sketch("dsgd", topology="karate", rate=0.02)


def walked(folder: Path, alphas: list[int], a: float = 0.8, b: float = 0.9) -> Comparison:
    """Two walks of 20 visits a round and gossip, on the karate club."""
    graphs = {"karate": of(nx.karate_club_graph())}
    plain = write_comparison(folder, [*WALKS, GOSSIP], nodes=34, rounds=30, topologies=graphs, target=None)
    steps = {"alpha 5": 20, "alpha 0": 20, "dsgd": 34}
    repelled = {f"alpha {alpha}": Repelled(alpha=alpha, gamma_decay=a, decay=b) for alpha in alphas}
    told = [
        method.model_copy(update={"steps_per_round": steps[method.name], "repelled": repelled.get(method.name)})
        for method in plain.methods
    ]
    found = plain.model_copy(update={"methods": told})
    (folder / DOCUMENT).write_text(found.model_dump_json())
    return found


def series(comparison: Comparison) -> list[Series]:
    return [Series(method.name, "#123456", "o", False, {}, ()) for method in comparison.methods]


def table(text: str) -> list[list[str]]:
    """The rows of what repulsion gains."""
    section = text.partition('id="repulsion"')[2].partition("</table>")[0].partition("<tbody")[2]
    return [re.findall(r"(?:</span>|<td[^>]*>)([^<]+)</t", row) for row in section.split("<tr")[1:]]


def test_errors_are_drawn_against_visits_and_bytes_and_what_alpha_gains_beside_the_formula(tmp_path: Path) -> None:
    walked(tmp_path, [0, 5])
    text = write_report(tmp_path).read_text()
    assert "<h3>Test error against steps of all nodes (visits)</h3>" in text
    assert "<h3>Test error against bytes sent per node</h3>" in text
    (least, *_, one, told), (most, error, ratio, formula) = table(text)
    assert (least, one, told, most, formula) == ("0", "1", "1", "5", "0.0086")
    assert 0.01 < float(ratio) < 0.5
    assert re.fullmatch(r"\d\.\de-0\d ± \d+%", error)
    assert "After 600 visits." in text
    assert "is asymptotic" in text
    assert "Here that is 1.9 times as much" in text


def test_where_all_methods_take_as_many_steps_nothing_is_drawn_twice(tmp_path: Path) -> None:
    write_comparison(tmp_path, [GOSSIP], topologies={"karate": of(nx.karate_club_graph())}, rounds=10)
    assert "Test error" not in write_report(tmp_path).read_text()


def test_there_is_a_formula_only_where_counts_are_faster_than_steps(tmp_path: Path) -> None:
    slow, fast = (walked(tmp_path / name, [0, 5], 0.8, b) for name, b in (("slow", 0.7), ("fast", 0.9)))
    (without,), (whole,) = (repulsions(one, series(one)) for one in (slow, fast))
    assert [gain.limit for gain in without.gains] == ["", ""]
    assert not without.of_formula
    assert without.svg.count("stroke-dasharray") == 0 < whole.svg.count("stroke-dasharray")


def test_one_alpha_alone_gains_nothing(tmp_path: Path) -> None:
    alone = walked(tmp_path, [0])
    assert repulsions(alone, series(alone)) == []
