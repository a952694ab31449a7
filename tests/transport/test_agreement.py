"""All nodes agree on a round that nobody has begun, however far apart they are, and one after the other is whole."""

import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from torch.distributed import HashStore, PrefixStore

from decentral.transport import agreement
from decentral.transport.agreement import Agreement, Wish


@dataclass
class Job:
    """Ranks as threads that do nothing but go from round to round, each at a pace of its own."""

    size: int
    rounds: int
    pauses: list[float]
    asking: dict[int, list[tuple[int, Wish]]]  # by rank: the rounds in which it asks, and what for
    apart: int | None = None  # how many rounds nobody may be ahead of the slowest
    store: HashStore = field(default_factory=HashStore)
    saved: list[list[tuple[int, Wish]]] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    told: list[tuple[int, int, str]] = field(default_factory=list)

    def run(self) -> "Job":
        self.at, self.last = [0] * self.size, threading.Barrier(self.size)
        with ThreadPoolExecutor(self.size) as pool:
            self.saved = list(pool.map(self._rank, range(self.size)))
        return self

    def _rank(self, rank: int) -> list[tuple[int, Wish]]:
        def whole(round: int, reports: Mapping[int, str]) -> str:
            self.whole.append(round)
            return " ".join(reports[other] for other in range(self.size))

        def told(round: int, text: str) -> None:
            self.told.append((rank, round, text))

        part = Agreement(PrefixStore("run/0", self.store), rank, self.size, 20.0, whole, told)
        part.begin(0)
        saved = []
        for round in range(self.rounds + 1):
            if round == self.rounds:
                self.last.wait(20)  # a run's last evaluation brings all nodes together
            for when, wish in self.asking.get(rank, []):
                if when == round:
                    assert part.ask(wish, round)
            wish = part.at(round)
            if wish:
                saved.append((round, wish))
                part.written(round, f"{rank}@{round}")
            if wish is Wish.STOP:
                part.wait_whole(round)
                break
            self.at[rank] = round
            while self.apart is not None and round - min(self.at) >= self.apart:
                time.sleep(0.0002)
            time.sleep(self.pauses[rank])
        self.at[rank] = self.rounds * 2
        for round, _ in saved:
            part.wait_whole(round)
        part.close(in_peace=True)
        return saved


@pytest.mark.parametrize("seed", range(6))
def test_free_running_nodes_save_one_round_and_stop_in_another(seed: int) -> None:
    """No barrier holds these nodes together: the fast ones are hundreds of rounds ahead of the slow."""
    draw = random.Random(seed)
    size = draw.choice([1, 2, 5])
    pauses = [draw.choice([0.0002, 0.001, 0.003]) for _ in range(size)]
    asking = {draw.randrange(size): [(3, Wish.SAVE)]}
    asking.setdefault(size - 1, []).append((20, Wish.STOP))
    job = Job(size, 3000, pauses, asking).run()
    assert all(saved == job.saved[0] for saved in job.saved)
    first, last = job.saved[0][0], job.saved[0][-1]
    assert first[0] >= 3
    assert last[1] is Wish.STOP
    assert 20 <= last[0] < 3000
    assert job.whole == [round for round, _ in job.saved[0]]


def test_a_signal_to_all_makes_one_checkpoint() -> None:
    """A scheduler signals every rank at once; each asks at the end of its round, and all mean the same."""
    asking = {rank: [(10, Wish.SAVE), (40, Wish.STOP)] for rank in range(4)}
    job = Job(4, 3000, [0.001] * 4, asking, apart=2).run()
    assert [len(saved) for saved in job.saved] == [2, 2, 2, 2]
    assert all(saved == job.saved[0] for saved in job.saved)
    assert [round <= limit for (round, _), limit in zip(job.saved[0], (14, 44), strict=True)] == [True, True]


def test_everyone_learns_what_node_0_made_of_the_reports() -> None:
    job = Job(3, 200, [0.001] * 3, {2: [(5, Wish.SAVE)]}, apart=1).run()
    ((round, _),) = job.saved[0]
    assert sorted(job.told) == [(rank, round, f"0@{round} 1@{round} 2@{round}") for rank in (1, 2)]


def test_a_request_close_to_the_end_lets_the_run_end() -> None:
    job = Job(2, 30, [0.0, 0.002], {1: [(29, Wish.STOP)]}).run()
    assert job.saved == [[(30, Wish.STOP)]] * 2


def test_a_node_that_does_not_answer_refuses_the_request_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "ANSWER_S", 0.3)
    store = HashStore()

    def part(rank: int) -> Agreement:
        return Agreement(PrefixStore("run/0", store), rank, 3, 5.0, lambda *_: "", lambda *_: None)

    alive = [part(0), part(1)]  # node 2 has never come
    for one in alive:
        one.begin(0)
    assert alive[0].at(0) is Wish.NOTHING
    assert not alive[1].ask(Wish.STOP, 4)
    began = threading.Event()
    threading.Thread(target=lambda: (alive[0].at(1), began.set()), daemon=True).start()
    assert began.wait(3)
    for one in alive:
        one.close(in_peace=True)
