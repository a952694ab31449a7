"""Shares and overlap of spans given by hand, in known numbers."""

import pytest

from decentral.measure.trace import Event
from decentral.measure.trace_summary import overlap, shares


def spans(*given: tuple[str, float, float]) -> list[Event]:
    return [Event(ph="X", name=cat, cat=cat, pid=0, ts=began, dur=done - began) for cat, began, done in given]


def test_each_moment_is_counted_once() -> None:
    """What nests counts for the innermost, what touches does not nest, and evaluations are no part of it."""
    events = spans(
        ("evaluate", 0, 50),
        ("round", 100, 200),
        ("mix", 110, 150),
        ("local step", 120, 130),
        ("wait", 150, 190),
    )
    found = {name: share for name, share in shares(events).items() if share}
    assert found == pytest.approx({"mix": 0.3, "local step": 0.1, "wait": 0.4, "other": 0.2})


def test_overlap_is_the_share_that_was_computed_in() -> None:
    computed = spans(("forward", 0, 10), ("backward", 10, 30), ("wait", 30, 45), ("mix", 50, 60))
    exchange = [
        Event(ph=ph, name="exchange", cat="exchange", pid=0, ts=ts, id=key)
        for key, began, ended in (("a", 5, 45), ("b", 55, 65))
        for ph, ts in (("b", began), ("e", ended))
    ]
    assert overlap(computed) is None
    assert overlap(computed + exchange) == pytest.approx((25 + 5) / (40 + 10))
