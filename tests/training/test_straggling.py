"""Slow nodes of real processes: how long they sleep, by clocks that are the test's."""

from math import inf

import pytest
import torch
from torch import Tensor

from decentral.peer import LossAndGradient
from decentral.training import straggling
from decentral.training.straggling import Straggling
from decentral.transport.clock.spells import Slowed, Spells

ALWAYS = Spells((0.0, inf))


class Time:
    """Goes by when somebody works or sleeps."""

    def __init__(self) -> None:
        self.now_s, self.cpu_s = 100.0, 3.0

    def work(self, seconds: float, waits_s: float = 0.0) -> None:
        self.now_s += seconds + waits_s
        self.cpu_s += seconds

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(straggling, "perf_counter", lambda: time.now_s)
    monkeypatch.setattr(straggling, "thread_time", lambda: time.cpu_s)
    monkeypatch.setattr(straggling, "sleep", time.sleep)
    return time


def taken(time: Time, node: Straggling, work_s: float) -> float:
    """How long a gradient takes."""
    began_s, answer = time.now_s, LossAndGradient(torch.zeros(()), torch.ones(3))

    def gradient(_at: Tensor) -> LossAndGradient:
        time.work(work_s)
        return answer

    assert node.gradient(gradient)(torch.zeros(3)) is answer
    return time.now_s - began_s


def test_a_gradient_takes_as_many_times_as_long_as_it_did(time: Time) -> None:
    node = Straggling([Slowed(ALWAYS, 10.0)])
    assert [taken(time, node, work_s) for work_s in (0.5, 0.25)] == pytest.approx([5.0, 2.5])


def test_a_least_time_is_slept_for_and_slowed_too(time: Time) -> None:
    assert taken(time, Straggling([], least_s=0.5), 0.125) == pytest.approx(0.5)
    assert taken(time, Straggling([], least_s=0.5), 2.0) == pytest.approx(2.0)
    assert taken(time, Straggling([Slowed(ALWAYS, 4.0)], least_s=0.5), 0.125) == pytest.approx(2.0)


def test_a_spell_begins_in_the_middle_of_a_gradient_and_ends_in_it(time: Time) -> None:
    """Half of the second gradient's work is done when the node stands still; the third begins after the spell."""
    node = Straggling([Slowed(Spells((1.5, 4.5)), inf)])
    assert [taken(time, node, 1.0) for _ in range(3)] == pytest.approx([1.0, 4.0, 1.0])


def test_what_a_step_of_ddp_waits_for_others_is_not_its_own_slowness(time: Time) -> None:
    node, began_s = Straggling([Slowed(ALWAYS, 3.0)]), time.now_s
    with node.step():
        time.work(1.0, waits_s=0.5)
    assert time.now_s - began_s == pytest.approx(3.0)
    with node.step():  # it waited for one that is slower still
        time.work(1.0, waits_s=7.0)
    assert time.now_s - began_s == pytest.approx(3.0 + 8.0)


def test_what_others_wait_for_in_a_step_of_ddp_is_late_too(time: Time) -> None:
    """Its gradients come as late as they would if the rank computed that slowly, the least time shared out evenly."""
    node, began_s = Straggling([Slowed(ALWAYS, 3.0)], least_s=0.0), time.now_s
    with node.step():
        time.work(1.0)
        node.reached()
        assert time.now_s - began_s == pytest.approx(3.0)
        time.work(0.5, waits_s=4.0)
        node.reached()
    assert time.now_s - began_s == pytest.approx(7.5), "it waited for longer than it is slow"

    node, paused_s = Straggling([], least_s=1.0), []
    for _ in range(2):
        began_s = time.now_s
        with node.step():
            time.work(0.1)
            node.reached()
            paused_s.append(time.now_s - began_s)
            time.work(0.1)
        assert time.now_s - began_s == pytest.approx(1.0)
    assert paused_s == pytest.approx([0.1, 0.5]), "from the second step on it is known how long a step works"
    node.reached()  # outside of a step nothing is late
    assert time.now_s - began_s == pytest.approx(1.0)
