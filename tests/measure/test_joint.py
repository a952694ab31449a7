"""Several comparisons in one table: methods meet in a row, numbers stay in their own column."""

from html import unescape
from pathlib import Path

import pytest

from decentral.errors import ConfigError
from decentral.measure.comparison import DOCUMENT, Candidate, Comparison, Tuned, Tuning
from decentral.measure.joint import read_joint, write_joint_report
from tests.measure.test_report import ALLREDUCE, GOSSIP, Checker, Sketch, write_comparison

TUNED = Tuned(seed=0, rounds=300, training_samples=1150, validation_samples=288)


def named(name: str, graph: str, ceiling: float) -> Sketch:
    return Sketch(name, topology=graph, ceiling=ceiling)


def with_rates(folder: Path, lr: float) -> None:
    """As if all methods had been tuned: the other rate diverged."""
    lost = Candidate(lr=9, accuracy=None, loss=None, failure="node 0 diverged in round 1")
    kept = Candidate(lr=lr, accuracy=0.9, loss=0.1, failure=None)
    tuning = Tuning(lr=lr, edge="lowest", candidates=[kept, lost])
    comparison = Comparison.model_validate_json((folder / DOCUMENT).read_bytes())
    methods = [method.model_copy(update={"tuning": tuning}) for method in comparison.methods]
    changed = comparison.model_copy(update={"methods": methods, "tuned": TUNED})
    (folder / DOCUMENT).write_text(changed.model_dump_json())


def test_a_method_named_after_its_graph_meets_itself_and_each_number_stays_in_its_column(tmp_path: Path) -> None:
    steady = named("QG on a ring", "ring", 0.9)
    first = write_comparison(tmp_path / "ring", [named("dsgd ring", "ring", 0.8), steady, ALLREDUCE])
    second = write_comparison(tmp_path / "torus", [named("dsgd torus", "torus", 0.6), ALLREDUCE])
    with_rates(tmp_path / "torus", lr=0.25)
    joint = read_joint([tmp_path / "ring", tmp_path / "torus"])
    (dsgd, _, on), (qg, _, ran), (allreduce, baseline, _) = joint.rows()
    assert (dsgd, qg, allreduce, baseline) == ("dsgd", "QG on a ring", "allreduce", True)
    assert on[0] is not None
    assert on[1] is not None
    assert on[0].cell.text == f"{100 * (first.methods[0].final_accuracy or 0):.1f}%"
    assert on[1].cell.text == f"{100 * (second.methods[0].final_accuracy or 0):.1f}%"
    assert on[0].notes[-1] == f"worst node {100 * (first.methods[0].worst_node_accuracy or 0):.1f}%"
    assert on[1].notes[-1] == "lr 0.25, the lowest of the grid"
    assert ran[1] is None
    numbers = joint.document()[0]
    assert numbers["torus"]["final_accuracy"]["median"] == second.methods[0].final_accuracy
    assert (numbers["ring"]["lr"], numbers["torus"]["lr"]) == (None, 0.25)
    page = write_joint_report(joint).read_text()
    Checker(page)
    text = unescape(page)
    for said in (
        "not run",
        "lr 0.25, the lowest of the grid",
        "dsgd torus diverged in the trial at lr 9.",
        on[1].cell.text,
    ):
        assert said in text


def test_names_keep_their_graphs_where_these_tell_methods_apart(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_comparison(tmp_path / place, [named("dsgd ring", "ring", 0.8), named("dsgd torus", "torus", 0.8)])
    joint = read_joint([tmp_path / "a", tmp_path / "b"])
    assert [name for name, _, _ in joint.rows()] == ["dsgd ring", "dsgd torus"]


def test_what_does_not_fit_into_one_table_is_refused(tmp_path: Path) -> None:
    write_comparison(tmp_path / "a", GOSSIP)
    write_comparison(tmp_path / "b", GOSSIP, score="test_loss", target=None)
    with pytest.raises(ConfigError, match="accuracy and test_loss"):
        read_joint([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ConfigError, match="given twice"):
        read_joint([tmp_path / "a", tmp_path / "a"])
