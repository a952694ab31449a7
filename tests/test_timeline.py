"""What a timeline keeps, and what it forgets."""

import pytest

from decentral.timeline import Timeline


def test_the_last_rounds_are_kept_and_the_others_counted() -> None:
    timeline = Timeline(node=3, rounds=2)
    timeline.add("evaluate", 0, 1)
    for round in range(5):
        timeline.begin_round(round)
        timeline.add("round", 10 * round, 10 * round + 5)
    assert [span.round for span in timeline.spans()] == [3, 4]
    assert (timeline.rounds_seen, timeline.dropped_rounds) == (5, 3)


def test_what_comes_before_the_first_round_is_kept_with_it() -> None:
    timeline = Timeline(node=0, rounds=1)
    timeline.add("evaluate", 0, 1)
    timeline.begin_round(0)
    timeline.add("round", 2, 3)
    assert [span.category for span in timeline.spans()] == ["evaluate", "round"]
    assert timeline.dropped_rounds == 0


def test_work_that_fails_leaves_its_span_too() -> None:
    timeline = Timeline(node=0)

    def work(amount: int) -> int:
        return 6 // amount

    timed = timeline.timed("evaluate", work)
    assert timed(2) == 3
    with pytest.raises(ZeroDivisionError):
        timed(0)
    spans = list(timeline.spans())
    assert [span.category for span in spans] == ["evaluate", "evaluate"]
    assert all(timeline.began_ns <= span.began_ns <= span.ended_ns for span in spans)
