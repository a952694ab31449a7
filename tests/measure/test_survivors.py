"""What is recorded of a run whose nodes die: figures over the living, by whichever of them is the first."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from decentral.errors import LostMeetingError
from decentral.measure.comparison import Evaluation
from decentral.measure.evaluation import Evaluator
from decentral.measure.export import best
from decentral.measure.record import Metrics
from decentral.measure.run import _while_agreed
from decentral.transport.lockstep import LockstepDriver
from tests.measure.test_diagnostics import evaluated, prepared, scattered
from tests.measure.test_summary import row


class Bereaved(LockstepDriver):
    """Hosts all nodes, of which one dies during the gather of so many, counted from 0; NaN stands for it from there."""

    dying, at, gathers = 0, 0, 0

    @property
    def living(self) -> tuple[int, ...]:
        return tuple(node for node in self.hosted if self.gathers <= self.at or node != self.dying)

    def gather(self, values: Mapping[int, list[float]], patience_s: float = 0.0) -> list[list[float]]:
        self.gathers += 1
        nothing = [torch.nan] * len(next(iter(values.values())))
        return [values[node] if node in self.living else nothing for node in self.hosted]

    def mean(self, vectors: Mapping[int, Tensor], weights: Mapping[int, float] | None = None) -> Tensor:
        return torch.stack([vectors[node] for node in self.living]).mean(0)


def rows_of(folder: Path, dying: int, at: int) -> tuple[list[Evaluation], Evaluation]:
    """What is observed of scattered models of which one dies, and what would be if none did."""
    ready = prepared(folder)
    objectives = {node: ready.task.objective(node) for node in range(4)}
    driver = Bereaved([one.gradient for one in objectives.values()])
    driver.dying, driver.at = dying, at
    seen: list[Evaluation] = []
    modules = {node: one.module for node, one in objectives.items()}
    models = scattered(ready, ready.task.start(), 0.1)
    Evaluator(ready.task, driver, modules, seen.append, ready.diagnostics, ready.topology)(0, 0.0, models, {})
    return seen, evaluated(ready, models)


def test_the_dead_have_no_entries_and_no_part_in_figures(tmp_path: Path) -> None:
    (found,), whole = rows_of(tmp_path, dying=2, at=0)
    assert found.living == [0, 1, 3]
    for of_nodes, expected in (
        (found.node_accuracy, whole.node_accuracy),
        (found.node_test_loss, whole.node_test_loss),
        (found.bytes_sent, whole.bytes_sent),
    ):
        assert of_nodes == [None if node == 2 else value for node, value in enumerate(expected or [])]
    assert found.accuracy_spread is not None
    assert found.accuracy_spread.min == min(found.accuracies) >= 0
    assert found.consensus_distance is not None
    assert found.heterogeneity is not None
    assert found.consensus_bound is None
    assert whole.consensus_bound is not None


def test_the_first_living_node_observes_and_the_next_one_again_where_that_died_of_it(tmp_path: Path) -> None:
    seen, _ = rows_of(tmp_path, dying=0, at=3)  # nodes, gradients and edges are there; the last gather tells
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert len(rows_of(tmp_path, dying=1, at=3)[0]) == 1


def test_who_takes_the_record_over_goes_on_after_the_last_whole_line(tmp_path: Path) -> None:
    first, second = Metrics(tmp_path), Metrics(tmp_path)
    rows = [row(round, 0.1, [0.1, 0.2]) for round in (0, 10, 20, 30)]
    first(rows[0])
    first(rows[1])
    assert (first.records, second.records) == (True, False)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 20, "sec')
    second(rows[2])
    second(rows[3])
    assert second.rows == rows
    assert [*map(Evaluation.model_validate_json, (tmp_path / "metrics.jsonl").read_text().splitlines())] == rows
    third = Metrics(tmp_path)
    third(rows[3])  # the one before it had written it, and died before anybody knew
    assert third.rows == rows
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_the_best_node_lives() -> None:
    one = row(1, 0.5, [0.3, 0.4]).model_copy(update={"node_accuracy": [None, 0.2, 0.3]})
    assert best(one) == 2


@pytest.mark.parametrize(("node", "lines"), [(1, ["gone"]), (2, [])])
def test_where_nothing_can_be_agreed_on_measurement_ends_with_one_line(node: int, lines: list[str]) -> None:
    told, calls = list[str](), list[int]()
    driver: Any = SimpleNamespace(hosted=(node,), living=(0, 1, 2))

    def evaluate(round: int) -> None:
        calls.append(round)
        if round == 2:
            raise LostMeetingError("gone")

    measure = _while_agreed(evaluate, driver, told.append)
    for round in range(5):
        measure(round)
    assert (calls, told) == ([0, 1, 2], lines)
