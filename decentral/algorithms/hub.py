"""What methods have in common in which one node serves, the hub of a star: the centralized asynchronous baselines.

Node 0, the hub, keeps the model x and computes nothing; the M = n - 1 others keep nothing and compute:

    the hub sends x to a node, which is a job
    the node makes of it a vector v, such as a gradient there, and sends that back
    the hub changes x by v, which makes k the number of changes, and hands out the next job

Since other jobs come back meanwhile, v is of an x that is tau = k - k' changes old, k' being the number of them when
the job was handed out. C jobs are out at any time, M unless `concurrency` says otherwise. To whom the next one goes:

    ready      the node that came back                     fast nodes get more jobs
    random     any, each as likely (Koloskova et al.)      a busy one finds it when it is through
    shuffled   each once, in random order, and so on       the same, and each gets as many (AsGrad)

With `wait_for` = b the hub hands out b jobs once b have come back (AsGrad's waiting); with b = C and random jobs that
is minibatch SGD. With `max_delay` it holds back what would make another job older than that, and waits for that one.

A step of the hub is over with every M gradients that have been computed for it, of which each counts, used or not. So
as many rounds are as many steps of all nodes; and learning rates that change over the rounds change by these.

    k   state.changes    k'   Job.changes    x   state.x, at the hub; at others the point where they compute

References: Mishchenko, Bach, Even and Woodworth 2022 (arXiv:2206.07638); Koloskova, Stich and Jaggi 2022
(arXiv:2206.08307); Islamov, Safaryan and Alistarh 2023 (AsGrad, arXiv:2310.20452).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from decentral.algorithms.asynchronous import Asynchronous
from decentral.algorithms.hub_state import HubState, Job, Result
from decentral.errors import ConfigError
from decentral.peer import Letter, Peer
from decentral.seeding import turn_stream
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology

__all__ = ["HUB", "REFUSED", "Hub", "HubState", "Result"]

HUB = 0
REFUSED = 1
"""The kind of the letter by which a node that has made its steps gives a job back; all others are vectors.

Its mark is 1 where it keeps the job instead, since it is in the midst of it, and would go on with it after a cut.
"""


@dataclass(frozen=True, kw_only=True)
class Hub(Asynchronous):
    """A method of a hub.

    Args:
        assign: who gets the next job.
        concurrency: C; the number of the other nodes unless given.
        wait_for: how many jobs must be back before others are handed out.
    """

    mixing: ClassVar[Kind] = "symmetric"
    uses_weights: ClassVar[bool] = False
    staleness_counts: ClassVar[str] = "changes of the hub's model since it handed the job out"
    looks_back: ClassVar[bool] = False
    """Whether the hub keeps, for each job, the model that it began with."""
    takes_all: ClassVar[bool] = False
    """Whether the hub takes all that has come before it changes anything, and each frees its node for the next job."""

    assign: Literal["ready", "random", "shuffled"] = "ready"
    concurrency: int | None = None
    wait_for: int = 1

    @property
    def every(self) -> int:
        """How many gradients a job takes."""
        return 1

    def favors_fast(self) -> str:
        """What makes the data of fast nodes count for more, in the user's words; empty where nothing does."""
        return "assign: ready, by which fast nodes get more jobs" if self.assign == "ready" else ""

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        is_star = graph.neighbors(HUB) == (*range(1, graph.nodes),) and len(graph.edges) == graph.nodes - 1 > 0
        if not is_star or graph.schedule.period != 1:
            raise ConfigError(
                f"found {graph.name} with {graph.nodes} nodes and {len(graph.edges)} links; node {HUB} serves all "
                "others: use topology: star, with 2 nodes or more and no schedule"
            )
        return graph, ""

    def on(self, graph: Topology) -> Self:
        others = graph.nodes - 1
        jobs = others if self.concurrency is None else self.concurrency
        if self.assign == "ready" and jobs != others:
            raise ConfigError(
                f"found concurrency: {jobs} for {others} nodes, each of which gets its next job when it is ready; use "
                "assign: random or shuffled, or leave concurrency out"
            )
        if self.wait_for > jobs:
            raise ConfigError(f"found wait_for: {self.wait_for}; required: at most the {jobs} jobs that are out")
        if self.max_delay is not None and not self.takes_all and self.max_delay < jobs - 1:
            raise ConfigError(
                f"found max_delay: {self.max_delay}; of {jobs} jobs that are out one gets {jobs - 1} changes old, "
                "however fast nodes are: raise max_delay, or lower concurrency"
            )
        return self

    def share(self, state: HubState, peer: Peer) -> tuple[Tensor, float]:
        return (state.x, 1.0) if peer.node == HUB else (torch.zeros_like(state.x), 0.0)

    def jobs_out(self, peer: Peer) -> int:
        """C."""
        return self.concurrency or peer.nodes - 1

    def init(self, x: Tensor, peer: Peer) -> HubState:
        return HubState(
            x=x,
            local=self.local.bind(x, peer.layout),
            staleness=[],
            came={},
            changes=0,
            computed=0,
            handed_out=0,
            jobs={},
            held=[],
            free=[],
            gone=[],
            order=[],
            begins=True,
            done=-1,
            start=torch.empty(0, device=x.device) if peer.node == HUB else torch.zeros_like(x),
            loss=x.new_zeros(1),
            mark=torch.zeros(1, dtype=torch.uint8, device=x.device),
        )

    async def step(self, state: HubState, peer: Peer) -> Tensor:
        if peer.node == HUB:
            return await self._lead(state, peer)
        if state.done < 0:
            await self._begin_job(state, peer)
        loss, result = await self.work(state, peer)
        state.done += 1
        if result is not None:
            state.loss.fill_(loss)
            await peer.send(HUB, (result, state.loss), state.kinds())
            state.done = -1
        return loss

    async def serve(self, state: HubState, peer: Peer) -> Tensor:
        kinds = state.kinds()
        if peer.node == HUB:
            await self._begin(state, peer)  # others may have steps to make where the hub has none
            while True:
                await self._listen(state, peer)
        if state.done >= 0:
            await peer.send(HUB, (torch.ones_like(state.mark),), kinds)
        while True:
            await peer.receive(kinds)
            await peer.send(HUB, kinds[REFUSED], kinds)

    def go_on(self, state: HubState, peer: Peer) -> None:  # noqa: ARG002
        state.gone, state.begins = [], True

    async def _begin_job(self, state: HubState, peer: Peer) -> None:
        letter = await peer.receive(state.kinds())
        state.x.copy_(letter.payload[0])
        state.start.copy_(letter.payload[0])
        state.done = 0

    async def _lead(self, state: HubState, peer: Peer) -> Tensor:
        others = peer.nodes - 1
        await self._begin(state, peer)
        while state.computed < (peer.round + 1) * others and len(state.gone) < others:
            await self._listen(state, peer)
        return state.loss[0].clone()

    async def _begin(self, state: HubState, peer: Peer) -> None:
        """Hand out the first jobs, or after a cut those that were given back at it."""
        if state.begins:
            state.begins = False
            for to in self._first(state, peer):
                await self._hand_out(state, peer, to)

    def _first(self, state: HubState, peer: Peer) -> list[int]:
        state.jobs = state.jobs or {node: [] for node in range(1, peer.nodes)}
        busy = state.busy(held=not self.takes_all)
        missing, idle = self.jobs_out(peer) - len(busy), [node for node in state.jobs if node not in busy]
        if missing == len(idle):
            return idle
        random = turn_stream(peer.seed, state.handed_out, "whom the hub gives the first jobs")
        order = sorted((random.permutation(peer.nodes - 1) + 1).tolist(), key=busy.count)
        return [order[number % len(order)] for number in range(missing)]

    async def _listen(self, state: HubState, peer: Peer) -> None:
        """Take what comes next, change the model by it, and hand out jobs."""
        letter = await self.next_letter(state, peer)
        while letter is not None:
            self._take(state, letter, peer)
            letter = await peer.receive_if_any(state.kinds()) if self.takes_all else None
        while due := self.due(state):
            state.held = [result for result in state.held if result not in due]
            state.free += [] if self.takes_all else [result.node for result in due]
            self.change(state, due, peer)
        await self._hand_out_all(state, peer)

    def _take(self, state: HubState, letter: Letter, peer: Peer) -> None:
        jobs = state.jobs[letter.sender]
        if letter.kind == REFUSED:
            state.gone += [] if letter.sender in state.gone else [letter.sender]
            if not letter.payload[0]:
                jobs.pop()
                state.free.append(letter.sender)
            return
        job = jobs.pop(0)
        vector, loss = letter.payload
        state.held.append(Result(letter.sender, job, vector.clone()))
        state.free += [letter.sender] if self.takes_all else []
        state.loss.copy_(loss)
        state.local.begin_round(state.computed // (peer.nodes - 1))
        state.computed += self.every

    async def _hand_out_all(self, state: HubState, peer: Peer) -> None:
        if len(state.free) < self.wait_for and state.out():
            return
        free, state.free = state.free, []
        for node in free:
            to = self._assigned(state, peer, node)
            if to is not None:
                await self._hand_out(state, peer, to)

    async def _hand_out(self, state: HubState, peer: Peer, to: int) -> None:
        state.jobs[to].append(Job(state.changes, state.x.clone() if self.looks_back else None))
        state.handed_out += 1
        await peer.send(to, (state.x, state.loss), state.kinds())

    def _assigned(self, state: HubState, peer: Peer, node: int) -> int | None:
        """Who does the next job where a node has done one; None for nobody."""
        others, gone = peer.nodes - 1, state.gone
        if self.assign == "ready" or len(gone) == others:
            return None if node in gone else node
        random = turn_stream(peer.seed, state.handed_out, "whom the hub gives a job")
        if self.assign == "random":
            return next(to for to in iter(lambda: int(random.integers(others)) + 1, 0) if to not in gone)
        while True:
            state.order = state.order or (random.permutation(others) + 1).tolist()
            if (to := state.order.pop()) not in gone:
                return to

    @abstractmethod
    async def work(self, state: HubState, peer: Peer) -> tuple[Tensor, Tensor | None]:
        """One gradient at a node: its loss, and what is sent to the hub where that is all of the job."""

    async def next_letter(self, state: HubState, peer: Peer) -> Letter | None:
        """What comes next; None where the hub is to go on without."""
        return await peer.receive(state.kinds())

    @abstractmethod
    def change(self, state: HubState, results: list[Result], peer: Peer) -> None:
        """Change the model by those that are due."""

    def due(self, state: HubState) -> list[Result]:
        """What of all that is held the model is to be changed by next; nothing where that is to wait."""
        if not state.held or self.max_delay is None:
            return state.held[:1]
        oldest = min(state.held, key=lambda result: result.job.changes)
        held = [result.job.changes for result in state.held if result is not oldest]
        others = sorted([*state.out(), *held])  # no job may be too old when its turn comes
        fits = all(state.changes + 1 + place - begun <= self.max_delay for place, begun in enumerate(others))
        return [oldest] if fits else []
