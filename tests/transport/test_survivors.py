"""The living ranks together, ranks as threads: one dies at each moment of an operation, and all others agree."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed import HashStore, PrefixStore

from decentral.transport import survivors
from decentral.transport.gloo import gloo_device, gloo_group
from decentral.transport.links import BrokenLinkError
from decentral.transport.survivors import Dead, LostStoreError, SurvivingEveryone

pytestmark = pytest.mark.timeout(60)

PATIENCE_S = 30.0
SIZE, MORTAL = 4, 1


class DiedError(BaseException):
    """Ends a thread as a signal ends a process."""


@dataclass
class Rank:
    """One rank: its engine, and what ends it."""

    everyone: SurvivingEveryone
    dead: Event

    def die(self) -> None:
        self.everyone._group = None  # the kernel closes a dead process's connections
        self.dead.set()
        raise DiedError


def ranks(failed: Callable[[], bool] = lambda: False) -> list[Rank]:
    store, device, event = HashStore(), gloo_device(None, one_machine=True), Event()

    def rank(number: int) -> Rank:
        def make(name: str, members: tuple[int, ...], patience_s: float) -> Any:
            group = PrefixStore(f"group/{name}", store)
            return gloo_group(group, members.index(number), len(members), device, patience_s)

        def noticed() -> Iterable[int]:  # by the neighbors of the dead alone
            return [MORTAL] if event.is_set() and number in (0, 2) else []

        everyone = SurvivingEveryone(number, SIZE, store, Dead(store), make, failed)
        everyone.noticed = noticed
        return Rank(everyone, event)

    return [rank(number) for number in range(SIZE)]


def at_once(all_ranks: list[Rank], work: Callable[[int, SurvivingEveryone], Any]) -> list[Any]:
    """What each rank's work came to; None for one that died."""

    def living(number: int) -> Any:
        try:
            return work(number, all_ranks[number].everyone)
        except DiedError:
            return None

    with ThreadPoolExecutor(SIZE) as pool:
        return list(pool.map(living, range(SIZE)))


def total(everyone: SurvivingEveryone, own: float) -> tuple[float, tuple[int, ...]]:
    x = torch.full((3,), own)
    everyone.add_up(x, PATIENCE_S)
    assert x.unique().numel() == 1
    return float(x[0]), everyone.members


def test_without_a_death_it_is_one_group_of_all() -> None:
    made: list[str] = []

    def work(number: int, everyone: SurvivingEveryone) -> Any:
        make = everyone._make
        everyone._make = lambda name, *of: made.append(name) or make(name, *of)  # type: ignore[func-returns-value]
        rows = everyone.gather(torch.tensor([float(number), 7.0]), PATIENCE_S)
        x = torch.full((2,), float(number))
        everyone.broadcast(x, PATIENCE_S)
        found = rows.tolist(), x.tolist(), total(everyone, 2.0**number)
        everyone.leave()
        everyone.close()
        return found

    rows = [[float(number), 7.0] for number in range(SIZE)]
    assert at_once(ranks(), work) == [(rows, [0.0, 0.0], (15.0, (0, 1, 2, 3)))] * SIZE
    assert made == ["1/0"] * SIZE


@pytest.mark.parametrize("moment", ["before", "announced", "making", "performing", "performed", "having said so"])
def test_a_death_at_any_moment_is_the_same_to_all_others(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivors, "GROUP_S", 0.5)
    all_ranks = ranks()
    mortal = all_ranks[MORTAL]
    say, make = mortal.everyone._say, mortal.everyone._make

    def last_words(key: str, value: str) -> None:
        if moment == "before" or (moment == "performed" and "done" in key):
            mortal.die()
        say(key, value)
        if moment == "announced" or (moment == "having said so" and "done" in key):
            mortal.die()

    class Unfinished:
        def __init__(self, group: Any) -> None:
            self._group = group

        def allreduce(self, *_: Any) -> None:
            self._group = None
            mortal.die()

    def made(*of: Any) -> Any:
        if moment == "making":
            mortal.die()
        group = make(*of)
        return Unfinished(group) if moment == "performing" else group

    mortal.everyone._say, mortal.everyone._make = last_words, made  # type: ignore[method-assign]

    def work(number: int, everyone: SurvivingEveryone) -> Any:
        return total(everyone, 2.0**number), total(everyone, 10.0), everyone.gather(Tensor([number]), PATIENCE_S)

    found = [one for one in at_once(all_ranks, work) if one is not None]
    assert len(found) == SIZE - 1
    first, second, rows = found[0]
    assert first in ((13.0, (0, 2, 3)), (15.0, (0, 1, 2, 3)))
    assert (moment == "before") <= (first[0] == 13.0)
    assert second == (30.0, (0, 2, 3))
    assert rows.flatten().isnan().tolist() == [False, True, False, False]
    assert rows.flatten()[[0, 2, 3]].tolist() == [0.0, 2.0, 3.0]
    assert [one[:2] for one in found] == [found[0][:2]] * (SIZE - 1)


def test_what_failed_for_one_is_repeated_by_all() -> None:
    made: dict[int, list[str]] = {}

    class Failing:
        def __init__(self, group: Any) -> None:
            self._group = group

        def allreduce(self, *of: Any) -> None:
            self._group.allreduce(*of).wait()
            raise RuntimeError("Connection closed by peer")

    def work(number: int, everyone: SurvivingEveryone) -> Any:
        make = everyone._make

        def noted(name: str, *of: Any) -> Any:
            made.setdefault(number, []).append(name)
            return Failing(make(name, *of)) if (number, name) == (MORTAL, "1/0") else make(name, *of)

        everyone._make = noted
        return [total(everyone, 2.0**number) for _ in range(2)]

    assert at_once(ranks(), work) == [[(15.0, (0, 1, 2, 3))] * 2] * SIZE
    assert made == {number: ["1/0", "1/1"] for number in range(SIZE)}


def test_who_lives_and_was_taken_for_dead_ends() -> None:
    all_ranks = ranks()
    all_ranks[0].dead.set()

    def work(number: int, everyone: SurvivingEveryone) -> Any:
        if number == MORTAL:
            others.wait(PATIENCE_S)
            with pytest.raises(BrokenLinkError, match="the others took this node for dead"):
                total(everyone, 1.0)
            return None
        found = total(everyone, 1.0)
        others.set()
        return found

    others = Event()
    assert at_once(all_ranks, work) == [(3.0, (0, 2, 3)), None, (3.0, (0, 2, 3)), (3.0, (0, 2, 3))]


def test_a_fault_that_ends_the_run_ends_the_wait() -> None:
    fault = Event()

    def work(number: int, everyone: SurvivingEveryone) -> Any:
        if number == MORTAL:
            fault.set()
            return
        with pytest.raises(BrokenLinkError, match="another node failed"):
            total(everyone, 1.0)

    at_once(ranks(fault.is_set), work)


def test_a_silent_rank_that_nobody_knows_to_be_dead_is_named() -> None:
    def work(number: int, everyone: SurvivingEveryone) -> Any:
        if number != MORTAL:
            with pytest.raises(BrokenLinkError, match="no answer of node 1, which nobody knows to be dead"):
                everyone.add_up(torch.ones(1), 0.3)

    at_once(ranks(), work)


def test_a_lost_store_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = ranks()

    def gone(*_: Any) -> None:
        raise RuntimeError("Broken pipe")

    monkeypatch.setattr(first.everyone, "_store", type("Gone", (), {"set": gone}))
    with pytest.raises(LostStoreError, match="connection closed"):
        first.everyone.add_up(torch.ones(1), PATIENCE_S)
