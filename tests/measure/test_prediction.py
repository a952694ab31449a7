"""What the clock simulator says of a comparison, beside what was measured."""

from pathlib import Path
from typing import Any

import pytest

from decentral.errors import ConfigError
from decentral.loading import load
from decentral.measure.comparison import Comparison
from decentral.measure.prediction import predict, refuse_unpredictable
from decentral.measure.prediction_table import Foretold, foretold, prediction_table
from decentral.measure.report import read_comparison, write_report
from decentral.measure.speedup import compare_simulated
from decentral.measure.terminal_table import predicted_table
from tests.contract.test_experiment import DIGITS, prepared

CLOCK: dict[str, Any] = {"gradient_s": [0.5, 0.125, 0.125, 0.125], "latency_s": 0.01}
SWIFT: dict[str, Any] = {
    "algorithm": "swift",
    "clock": CLOCK,
    "compare": [{"algorithm": "dsgd"}],
    "baselines": [{"algorithm": "ddp"}],
    "duration_s": 2.0,
    "evaluate_every_s": 1.0,
    "rounds": 4,
    "evaluate_every": 2,
}


def predicted(folder: Path, gradient_s: list[float]) -> Comparison:
    """A comparison in virtual time, and then a prediction of it by another clock."""
    prepared(folder, DIGITS, SWIFT)
    experiment = load(folder / "experiment.yaml").experiment
    compare_simulated(experiment, folder / "run", "a command", lambda *_: None)
    clock = experiment.clock
    assert clock is not None
    guess = experiment.model_copy(update={"clock": clock.model_copy(update={"gradient_s": gradient_s})})
    found = predict(guess, folder / "run", "another command", lambda *_: None)
    assert read_comparison(folder / "run" / "comparison.json") == found
    return found


def test_by_the_clock_it_ran_by_a_run_is_predicted_without_error(tmp_path: Path) -> None:
    found = predicted(tmp_path, CLOCK["gradient_s"])
    assert found.predicted is not None
    assert [method.name for method in found.predicted] == ["swift ring", "dsgd ring", "ddp"]
    assert found.predicted[0].per_seed == found.methods[0].per_seed
    for _, pace, seconds in foretold(found):
        assert pace.error == seconds.error == 0.0
        assert pace.measured


def test_ddp_is_predicted_as_all_reduce(tmp_path: Path) -> None:
    found = predicted(tmp_path, CLOCK["gradient_s"])
    assert found.predicted is not None
    ddp = found.predicted[2]
    assert ddp.algorithm == "allreduce"
    assert ddp.steps_per_second == pytest.approx(2.0, rel=0.2), "as fast as the slowest"


def test_a_clock_twice_as_slow_predicts_half_the_steps(tmp_path: Path) -> None:
    found = predicted(tmp_path, [2 * each for each in CLOCK["gradient_s"]])
    errors = {name: (pace.error, seconds.error) for name, pace, seconds in foretold(found)}
    assert errors["swift ring"] == (pytest.approx(-0.5, abs=0.01), pytest.approx(0.0))
    assert errors["dsgd ring"] == (pytest.approx(-0.5, abs=0.02), pytest.approx(1.0, abs=0.05))
    table = prediction_table(found)
    assert table is not None
    cells = dict(table.rows)["swift ring"]
    assert cells[:3] == ["4.00", "8.00", "-50%"]
    assert predicted_table(found) is not None
    page = write_report(tmp_path / "run").read_text()
    assert "Predicted and measured" in page
    assert "-50%" in page


def test_what_was_not_reached_has_no_error() -> None:
    assert Foretold(None, 1.0).error is None
    assert Foretold(1.0, None).error is None
    assert Foretold(3.0, 2.0).error == 0.5


def test_without_a_clock_nothing_is_predicted(tmp_path: Path) -> None:
    prepared(tmp_path, DIGITS, {"algorithm": "dsgd"})
    with pytest.raises(ConfigError, match="found no clock: section"):
        refuse_unpredictable(load(tmp_path / "experiment.yaml").experiment)
