"""From evaluations to compared numbers, by hand."""

import pytest

from decentral.measure.comparison import Evaluation, SeedResult
from decentral.measure.summary import _spread, seed_result, with_speedups


def row(round: int, accuracy: float, nodes: list[float], sent: int = 100) -> Evaluation:
    return Evaluation(
        round=round,
        seconds=round / 10,
        loss=1.0,
        test_loss=1.0,
        accuracy=accuracy,
        node_accuracy=nodes,
        node_test_loss=[1.0, 2.0],
        consensus_distance=0.0,
        distance_to_optimum=None,
        bytes_sent=[round * sent, 3 * round * sent],
    )


ROWS = [row(0, 0.1, [0.1, 0.1]), row(10, 0.96, [0.97, 0.9]), row(20, 0.97, [0.97, 0.95]), row(30, 0.9, [0.9, 0.8])]


def result(seconds: float | None, seed: int = 0) -> SeedResult:
    return seed_result(seed, ".", [], None, None).model_copy(update={"seconds_to_target": seconds})


def test_the_target_is_met_when_every_node_meets_it() -> None:
    """A model that no node holds, the average, may be there much sooner: at round 10 here."""
    found = seed_result(0, ".", ROWS, 0.95, None)
    assert (found.rounds_to_target, found.seconds_to_target, found.bytes_to_target) == (20, 2.0, 4000)
    assert (found.final_accuracy, found.worst_node_accuracy, found.bytes_per_node) == (0.9, 0.8, 6000)


def test_a_test_loss_is_met_from_above() -> None:
    rows = [line.model_copy(update={"accuracy": None, "node_accuracy": None}) for line in ROWS]
    assert seed_result(0, ".", rows, 2.0, None).rounds_to_target == 0
    assert seed_result(0, ".", rows, 1.5, None).rounds_to_target is None


def test_the_dead_have_no_part_in_what_is_reached() -> None:
    dead = {"node_test_loss": [1.0, None], "bytes_sent": [700, None]}
    last = ROWS[1].model_copy(update={"node_accuracy": [0.97, None], **dead})
    found = seed_result(0, ".", [ROWS[0], last], 0.95, None)
    assert (found.rounds_to_target, found.worst_node_accuracy, found.bytes_per_node) == (10, 0.97, 700)
    lost = last.model_copy(update={"accuracy": None, "node_accuracy": None})
    assert seed_result(0, ".", [lost], 1.5, None).rounds_to_target == 10


def test_no_target_and_a_failed_run_reach_nothing() -> None:
    assert seed_result(0, ".", ROWS, None, None).rounds_to_target is None
    failed = seed_result(0, ".", ROWS, 0.95, "diverged")
    assert (failed.rounds_to_target, failed.final_accuracy, failed.seconds) == (None, None, None)


def test_a_speedup_is_over_the_fastest_baseline_of_the_same_seed() -> None:
    runs = [result(2.0, 0), result(4.0, 1), result(None, 2), result(1.0, 3)]
    baseline = [result(6.0, 0), result(5.0, 0), result(2.0, 1), result(3.0, 2), result(None, 3)]
    found = [run.speedup_vs_allreduce for run in with_speedups(runs, baseline, [])]
    assert found == [2.5, 0.5, None, None]
    assert all(run.speedup_vs_ddp is None for run in with_speedups(runs, baseline, []))


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("seconds_to_target", [3.0, None, 1.0], (1.0, 3.0, None)),
        ("seconds_to_target", [None, None, 1.0], (1.0, None, None)),
        ("final_accuracy", [0.5, None, 0.9], (None, 0.5, 0.9)),
        ("seconds_to_target", [1.0, 2.0], (1.0, 1.5, 2.0)),
        ("speedup_vs_ddp", [3.0, None, 1.0], (1.0, 2.0, 3.0)),
        ("speedup_vs_ddp", [None, None], (None, None, None)),
    ],
)
def test_who_did_not_get_there_counts_as_the_worst(
    name: str, values: list[float | None], expected: tuple[float | None, ...]
) -> None:
    assert tuple(_spread(values, name).model_dump().values()) == expected
