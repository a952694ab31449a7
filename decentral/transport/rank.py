"""The rank driver: one node in one real process, its effects performed over links to its neighbors."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic, perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor

from decentral.errors import LostMeetingError, LostNeighborError
from decentral.peer import (
    AllReduce,
    Collect,
    Effect,
    Exchange,
    Gather,
    Gradient,
    Mix,
    Now,
    Payload,
    Poll,
    Post,
    Push,
    Receive,
    Send,
)
from decentral.transport.driver import (
    Driver,
    Finished,
    FreeRun,
    GradientAt,
    Step,
    all_reduce_bytes,
    both_ways,
    gather_bytes,
    members,
    proceed,
)
from decentral.transport.everyone import Circle, Everyone
from decentral.transport.exchanges import Exchanges, human_bytes
from decentral.transport.free import SLOWEST, AllThrough, TimeOverError, Waits, step_freely
from decentral.transport.gathers import Gathers
from decentral.transport.letters import Letters
from decentral.transport.links import BrokenLinkError
from decentral.transport.pushes import Pushes
from decentral.transport.survivors import LostStoreError
from decentral.transport.wiring import Wires

T = TypeVar("T")


class RankDriver(Driver):
    """Hosts one node.

    Args:
        node: the node, and rank, of this process.
        nodes: how many there are.
        wires: the links to its neighbors in the graph.
        gradient: the node's answer to `Gradient`.
        everyone: all ranks together, for AllReduce and for measurement.
        run: 64-bit digest of the experiment; both ends of a link must have the same.
        epoch: incarnation of the links.
        timeout_s: how long to wait for the neighbors of one exchange.
        circle: the ranks of some nodes together, made when they first need it; all of them unless given.
        survive: whether the node goes on when another dies.
    """

    def __init__(
        self,
        node: int,
        nodes: int,
        wires: Wires,
        gradient: GradientAt,
        everyone: Everyone,
        run: int,
        epoch: int,
        timeout_s: float,
        circle: Callable[[tuple[int, ...]], Circle] | None = None,
        survive: bool = False,
    ) -> None:
        self.hosted = (node,)
        self.bytes_sent = {node: 0}
        self._node, self._nodes = node, nodes
        self._exchanges = Exchanges(node, wires, run, epoch, timeout_s, self.bytes_sent)
        self._gathers = Gathers(node, nodes, run, epoch)
        self._letters = Letters(node, wires, run, epoch, timeout_s, self.bytes_sent, survive)
        self._began_s = perf_counter()
        self._pushes = Pushes(node, wires, run, epoch, timeout_s, self.bytes_sent, self._now_s)
        self._waits = Waits(self._letters, self._pushes, timeout_s)
        everyone.noticed = lambda: self._letters.dead
        self._failed = False
        self._gradient = gradient
        self._everyone, self._all = everyone, tuple(range(nodes))
        self._circle = circle or (lambda _: everyone)
        self._circles: dict[tuple[int, ...], Circle] = {}
        self._sums: list[Tensor] = []  # one for each AllReduce of a round
        self._reduced = 0  # in this round
        self._timeout_s = timeout_s
        self._round = 0

    def advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        self.begin_round(round)
        try:
            loss = self._performed(steps[self._node])
        except BaseException:
            self._failed = True
            raise
        self.end_round()
        return {self._node: loss}

    def _performed(self, step: Step, ends: Callable[[], bool] = lambda: False) -> Tensor:
        """Answer all effects of a step; its loss `()`.

        Raises:
            TimeOverError: it `ends` before.
        """
        answer: object = None
        try:
            while not isinstance(asked := proceed(step, answer), Finished):
                if ends():
                    raise TimeOverError
                answer = self.perform(asked)
            return asked.loss
        finally:
            step.close()

    def run_free(self, run: FreeRun) -> None:
        """Advance the node's steps at its own pace, and then answer others until all have made theirs.

        Raises:
            LostNeighborError: another node is gone, or takes very much longer than this one.
        """
        self._together("start", 0, partial(self._everyone.gather, torch.zeros(1)), self._everyone, self._all)
        self._letters.begin_free_run()
        self._began_s = perf_counter() - run.at_s
        try:
            self._waits.begin(run, self._now_s)
            step_freely(self._node, run, self._now_s, self._stepped)
            self._serve(run)
            self._waits.end()
            run.at_s = self._now_s()
        except BaseException:
            self._failed = True
            raise

    def _stepped(self, step: Step, number: int) -> Tensor:
        self.begin_round(number)
        loss = self._performed(step)
        self.end_round()
        return loss

    def _serve(self, run: FreeRun) -> None:
        patience_s = self._timeout_s + SLOWEST * self._now_s()
        gather, waits = self._everyone.gather, self._waits
        through = AllThrough(self._node, gather, waits.counts, patience_s, self._timeout_s, waits.wake)
        self._waits.until(through)
        with suppress(TimeOverError):
            self._performed(run.serve(self._node), through.is_over)
        self._waits.see_off(through)
        self._together("end", 0, through.check, self._everyone, self._all)

    def begin_round(self, round: int) -> None:
        """Number the exchanges of a round from 0; `perform` answers its effects, `end_round` takes the answers back."""
        self._round, self._reduced = round, 0
        self._exchanges.begin_round(round)
        self._gathers.begin_round(round)
        self._letters.begin_round(round)

    def end_round(self) -> None:
        """Reuse the memory of what the round's step was lent."""
        self._exchanges.end_round()
        self._letters.end_round()

    def perform(self, asked: Effect[Any]) -> object:
        """Answer one effect of the hosted node."""
        self._refuse_two_ways(asked)
        match asked:
            case Gradient(at=at):
                return self._gradient(at)
            case Exchange(messages=messages):
                return self._exchanges.collect(self._exchanges.post(messages, overlapped=False), "Exchange")
            case Post(messages=messages):
                return self._exchanges.post(messages, overlapped=True)
            case Collect(ticket=ticket):
                return self._exchanges.collect(ticket, "Collect")
            case Mix():
                self._exchanges.mix(asked)
                return None
            case AllReduce():
                return self._reduce(asked)
            case Gather(payload=payload):
                return self._gathered(payload)
            case Send():
                self._letters.send(asked)
                return None
            case Receive():
                return self._waits.receive(asked)
            case Push():
                self._pushes.push(asked)
                return None
            case Poll():
                return self._waits.poll(asked)
            case Now():
                return self._now_s()
            case _:
                raise TypeError(f"the rank driver does not answer {type(asked).__name__}")

    def _now_s(self) -> float:
        return perf_counter() - self._began_s

    def _refuse_two_ways(self, asked: Effect[Any]) -> None:
        pushes, writes, exchanges = isinstance(asked, Push | Poll), isinstance(asked, Send | Receive), _exchanges(asked)
        if (pushes and (self._letters.used or self._exchanges.begun)) or (self._pushes.used and (writes or exchanges)):
            raise both_ways(self._node, "pushes, and sends letters or exchanges,")
        if (writes and self._exchanges.begun) or (exchanges and self._letters.used):
            raise both_ways(self._node)

    def settle(self) -> None:
        self._exchanges.settle()
        for together, circle in self._circles.items():
            self._together("evaluation", 0, circle.settle, circle, together)

    def _reduce(self, asked: AllReduce) -> Tensor:
        together = members(asked, self._node, self._nodes)
        if together not in self._circles:
            self._circles[together] = self._circle(together)
        circle, out = self._circles[together], self._next_sum(asked.x, self._circles[together])
        self.bytes_sent[self._node] += all_reduce_bytes(asked.x, len(together))
        return self._sum(asked.x, "AllReduce", out, circle, together).div_(len(together)).to(asked.x.device)

    def _gathered(self, payload: Payload) -> dict[int, Payload]:
        """Through main memory, over the engine of all ranks that measures, too."""

        def perform(own: Tensor, out: Tensor) -> None:
            engine = self._everyone
            self._together("Gather", own.nbytes, partial(engine.gather, own, out=out), engine, self._all)

        self.bytes_sent[self._node] += gather_bytes(payload, self._nodes)
        return self._gathers.perform(payload, perform)

    def _next_sum(self, x: Tensor, circle: Circle) -> Tensor:
        memory, number = torch.device(_memory(x, circle)), self._reduced
        self._reduced += 1
        if number == len(self._sums):
            self._sums.append(torch.empty_like(x, device=memory))
        kept = self._sums[number]
        if (kept.shape, kept.dtype, kept.device) != (x.shape, x.dtype, memory):
            self._sums[number] = torch.empty_like(x, device=memory)
        return self._sums[number]

    def _sum(self, x: Tensor, kind: str, out: Tensor, circle: Circle, together: tuple[int, ...]) -> Tensor:
        out.copy_(x)
        self._together(kind, x.nbytes, partial(circle.add_up, out), circle, together)
        return out

    def _together(
        self, kind: str, nbytes: int, perform: Callable[[float], T], circle: Circle, together: tuple[int, ...]
    ) -> T:
        """Perform one operation of some ranks, or all, within the timeout."""
        began = monotonic()
        try:
            return perform(self._timeout_s)
        except LostStoreError as error:
            raise LostMeetingError(
                f"node {self._node} lost the store in which nodes agree, in round {self._round}: {error}; nothing is "
                "measured from here on (decentral train --nproc keeps the store in a process of its own)"
            ) from error
        except BrokenLinkError as error:
            whom = "all nodes" if len(together) == self._nodes else f"nodes {', '.join(map(str, together))}"
            raise LostNeighborError(
                f"node {self._node} waited {monotonic() - began:.1f} s for {whom} in round {self._round}: {error} "
                f"({kind}, {human_bytes(nbytes)}, {circle.name})"
            ) from error

    @property
    def living(self) -> tuple[int, ...]:
        members = self._everyone.members
        return self._all if members is None else members

    def mean(self, vectors: Mapping[int, Tensor], weights: Mapping[int, float] | None = None) -> Tensor:
        own = vectors[self._node]
        if weights is not None:  # behind the vector, so that one operation of the same nodes adds up both
            total = self._added_up(torch.cat([own, own.new_tensor([weights[self._node]])]))
            return total[:-1].div_(total[-1]).to(own.device)
        return self._added_up(own).div_(len(self.living)).to(own.device)

    def _added_up(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x, device=_memory(x, self._everyone))
        return self._sum(x, "evaluation", out, self._everyone, self._all)

    def gather(self, values: Mapping[int, list[float]], patience_s: float = 0.0) -> list[list[float]]:
        own = torch.tensor(values[self._node], dtype=torch.float64)

        def perform(timeout_s: float) -> Tensor:
            return self._everyone.gather(own, timeout_s + patience_s)

        gathered: list[list[float]] = self._together(
            "evaluation", own.nbytes, perform, self._everyone, self._all
        ).tolist()
        return gathered

    def broadcast(self, x: Tensor, patience_s: float = 0.0) -> None:
        """Overwrite `x` with node 0's: for the start of a run."""

        def perform(timeout_s: float) -> None:
            self._everyone.broadcast(x, timeout_s + patience_s)

        self._together("start", x.nbytes, perform, self._everyone, self._all)

    def close(self) -> None:
        self._letters.close(in_peace=not self._failed)
        self._pushes.close(in_peace=not self._failed)
        self._exchanges.close()
        if not self._failed:
            self._everyone.leave()
        for circle in [*self._circles.values(), self._everyone]:
            circle.close()


def _exchanges(asked: Effect[Any]) -> bool:
    return isinstance(asked, Exchange | Post | Mix)


def _memory(x: Tensor, circle: Circle) -> torch.device | str:
    """Where a circle adds up what is at `x`."""
    return x.device if x.device.type == circle.place else circle.place
