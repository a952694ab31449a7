"""The benchmark's ratios, from times made up by hand."""

from decentral.measure.bench import BARE, timings


def test_ratios_are_of_medians() -> None:
    measured = {BARE: [10.0, 30.0, 20.0], "dsgd ring": [50.0, 40.0, 90.0], "ddp": [25.0, 25.0, 25.0]}
    found = {timing.name: timing for timing in timings(measured, "ddp")}
    assert (found["dsgd ring"].median_ms, found["dsgd ring"].min_ms, found["dsgd ring"].max_ms) == (50, 40, 90)
    assert (found["dsgd ring"].over_bare, found["dsgd ring"].over_ddp, found["dsgd ring"].overhead_ms) == (2.5, 2, 30)
    assert (found[BARE].over_bare, found[BARE].over_ddp) == (1, 0.8)
    assert timings(measured, None)[0].over_ddp is None
    assert found["dsgd ring"].efficiency == 0.4


def test_a_prediction_stands_beside_the_median() -> None:
    measured = {BARE: [10.0], "dsgd ring": [40.0, 50.0, 90.0], "decent-dp ring": [40.0]}
    found = {timing.name: timing for timing in timings(measured, None, predicted_ms={"dsgd ring": 60.0})}
    assert (found["dsgd ring"].predicted_ms, found["dsgd ring"].predicted_over_measured) == (60, 1.2)
    assert (found[BARE].predicted_ms, found["decent-dp ring"].predicted_over_measured) == (None, None)
