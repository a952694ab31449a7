"""What virtual time remembers over a cut: as if it had never been forgotten."""

import json
from io import StringIO

import pytest
from numpy.random import default_rng

from decentral.errors import ConfigError
from decentral.transport.clock import Away, EventLog, Spells, VirtualTime, Wire
from decentral.transport.clock.numbers import Numbers
from tests.contract.free_runs import logged
from tests.contract.problems import Quadratics, graph
from tests.contract.test_asynchronous import common_start, method
from tests.contract.test_cuts import in_segments


def drawn(log: EventLog | None = None) -> VirtualTime:
    wire = Wire(latency_s=0.5, bytes_s=100.0, loss=0.5, retransmit_s=2.0)
    factors = {node: iter(default_rng(node).exponential(size=99).tolist()) for node in range(2)}
    return VirtualTime(
        [1.0, 3.0], lambda i, j: wire, factors, draws=lambda i, j: default_rng(10 + i), node_bytes_s=50.0, log=log
    )


def test_links_draws_and_numbers_go_on() -> None:
    time, numbers = drawn(), Numbers()
    for at_s in (0.0, 0.1, 0.2):
        time.transfer(0, 1, 100, at_s)
        numbers.next(0, 1)
        time.gradient_until_s(1, at_s)
    time.transfer(1, 0, 100, 0.3)
    courses = time.courses(numbers, down=[1])
    assert [courses[node].is_down for node in (0, 1)] == [False, True]
    assert [courses[node].gradients for node in (0, 1)] == [0, 3]
    assert (courses[0].links[1].sent, courses[0].links[1].numbers, courses[1].links[0].numbers) == (3, 3, 0)
    again = drawn()
    again.go_on(courses)
    assert again.courses(numbers, down=[1]) == courses
    for at_s in (0.3, 50.0):
        for edge in ((0, 1), (1, 0)):
            found = time.transfer(*edge, 100, at_s)
            assert found == again.transfer(*edge, 100, at_s)
            assert found != drawn().transfer(*edge, 100, at_s)
        assert time.gradient_until_s(1, at_s) == again.gradient_until_s(1, at_s)


def test_the_log_is_cut_back_to_what_it_was() -> None:
    text = StringIO()
    time = drawn(EventLog(text))
    time.gradient_until_s(0, 0.0)
    courses, whole = time.courses(Numbers(), ()), text.getvalue()
    time.gradient_until_s(0, 1.0)
    assert text.getvalue() != whole
    drawn(EventLog(text)).go_on(courses)
    assert text.getvalue() == whole
    with pytest.raises(ConfigError, match=f"has 3 bytes, and had {len(whole)}"):
        drawn(EventLog(StringIO("{}\n"))).go_on(courses)


def test_a_node_that_is_down_at_a_cut_goes_on_when_it_is_up() -> None:
    """Both ends of its outage are logged once, although one is before the cut and the other after it."""
    away = {1: [Away(Spells([1.5, 9.0]))]}
    time, events = logged(VirtualTime([4.0, 1.0], lambda i, j: Wire(), away=away))
    problem, start = Quadratics.draw(2), common_start(2)
    run, seconds = in_segments(method("swift"), graph("path-2"), problem.answers(), start, time, (1, 2))
    assert run.seconds == [[4.0, 8.0], [1.0, 10.0]]
    assert seconds == 10.0
    outages = [line for line in map(json.loads, events.getvalue().splitlines()) if line["event"] in ("down", "up")]
    assert [(line["event"], line["at_s"]) for line in outages] == [("down", 1.5), ("up", 9.0)]
