"""The training loop of asynchronous methods: each node steps at its own pace, and nobody is stopped for evaluations.

A free run lasts for a time, by the driver's clock, or until each node has made so many steps; who has made them goes on
answering the others. Evaluations bring all nodes together, so they follow the run, or a segment of it (`cuts`): at the
times when they are due, or after so many of its own steps, each node keeps a copy of its model (`albums`).
"""

from collections.abc import Mapping
from math import ceil, inf

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.fused import warm_up
from decentral.peer import Peer
from decentral.training.albums import Albums
from decentral.training.checkpoint import Snapshot, capture, restore
from decentral.training.cuts import Course, Cuts, course_of
from decentral.training.loop import Measure, Pace, check_finite
from decentral.training.objective import Objective
from decentral.transport.driver import Driver, FreeRun, Step
from decentral.transport.frames import HEADER_BYTES


def train_freely(
    algorithm: Algorithm,
    driver: Driver,
    peers: Mapping[int, Peer],
    objectives: Mapping[int, Objective],
    start: Tensor,
    pace: Pace,
    measure: Measure,
    cuts: Cuts | None = None,
    saved: Mapping[int, Snapshot] | None = None,
) -> dict[int, Tensor]:
    """Train the driver's nodes, each at its own pace.

    Args:
        peers: of each hosted node; their `round` is the node's own step.
        objectives: of each hosted node.
        start: `(d,)`, the model that every node begins with.
        pace: how long, and how often models are kept for `measure`, which is called with the mean number of steps.
        cuts: where the run is checkpointed; nowhere unless given.
        saved: of each hosted node, where to go on; from the beginning unless given.

    Returns:
        The final model `(d,)` of each hosted node.

    Raises:
        ConfigError: `saved` is of another model or another program.
        DivergedError: a node's loss is not finite.
    """
    for dtype in {start.dtype, torch.float64}:  # sums of weights
        warm_up(dtype)
    states = {node: algorithm.init(start.clone(), peers[node]) for node in driver.hosted}
    albums = Albums(algorithm, driver, peers, objectives, states, measure)
    cuts = cuts or Cuts()
    run = Running(algorithm, peers, objectives, states, pace, albums, cuts)

    def snapshots() -> dict[int, Snapshot]:
        sent = driver.bytes_sent
        of = {node: (run.round, run.at_s, sent[node], run.course(node)) for node in driver.hosted}
        return {node: capture(states[node], objectives[node], *numbers) for node, numbers in of.items()}

    if saved:
        for node, snapshot in saved.items():
            restore(snapshot, states[node], objectives[node])
            driver.bytes_sent[node] = snapshot.bytes_sent
        run.go_back(saved)
        run.meet(driver)
    else:
        albums.keep_all(0, dict.fromkeys(driver.hosted, 0.0))
    cuts.begin(snapshots)
    while not run.is_over:
        run.begin_segment()
        driver.run_free(run)
        run.end_segment()
        run.meet(driver)
        cuts.at(run.round, run.is_over, snapshots)
    return {node: state.x for node, state in states.items()}


class Running(FreeRun):
    """The steps of the hosted nodes, and when copies of them are kept."""

    def __init__(
        self,
        algorithm: Algorithm,
        peers: Mapping[int, Peer],
        objectives: Mapping[int, Objective],
        states: Mapping[int, State],
        pace: Pace,
        albums: Albums,
        cuts: Cuts,
    ) -> None:
        self._algorithm, self._peers, self._objectives, self._states = algorithm, peers, objectives, states
        self._pace, self._albums, self._cuts = pace, albums, cuts
        self._steps = albums.steps
        self._steps.update(dict.fromkeys(states, 0))
        self._ended_s = dict.fromkeys(states, 0.0)
        self._looks = 0
        self._least = 0  # steps of the node that has made fewest
        self._has_met = False
        self._goal, self._until_s = self._pace.rounds, inf  # of the segment
        self.round = 0

    @property
    def is_timed(self) -> bool:
        return self._pace.duration_s is not None

    @property
    def over_s(self) -> float:
        return inf if self._pace.duration_s is None or self._until_s < self._pace.duration_s else self._until_s

    @property
    def is_over(self) -> bool:
        """Whether all nodes have made their steps, or the time is over."""
        if self._pace.duration_s is None:
            return self._least >= self._pace.rounds
        return self.at_s >= self._pace.duration_s

    @property
    def last_row(self) -> int:
        """The row of what is kept after the run: the same in all processes, whatever their nodes have done."""
        if self._pace.duration_s is None:
            return -(-self._pace.rounds // self._pace.evaluate_every)
        return ceil(self._pace.duration_s / self._every_s() - 1e-9)

    def course(self, node: int) -> Course:
        """What a node carries over the cut where it is."""
        albums, clock = self._albums, (self.courses or {}).get(node)
        row, loss = albums.newest[node], albums.losses.get(node)
        return Course(self._steps[node], self._ended_s[node], row, loss, albums.kept_of(node), clock)

    def go_back(self, saved: Mapping[int, Snapshot]) -> None:
        """Begin where the hosted nodes were at a cut."""
        courses = {node: course_of(snapshot) for node, snapshot in saved.items()}
        for node, course in courses.items():
            self._steps[node], self._ended_s[node] = course.steps, course.ended_s
            # The last row of a run that was to make fewer steps is none of this one's.
            ended = self.is_timed or course.steps >= self._pace.rounds
            self._albums.newest[node] = course.row if ended else course.steps // self._pace.evaluate_every
            self._albums.put_back(node, course.kept)
            if course.loss is not None:
                self._albums.losses[node] = course.loss
        self._looks = min(self._albums.newest.values())
        self.at_s = max(snapshot.seconds for snapshot in saved.values())
        clocks = {node: course.clock for node, course in courses.items()}
        self.courses = None if None in clocks.values() else clocks

    def meet(self, driver: Driver) -> None:
        """Find out how far all nodes have come, at a cut, and evaluate what all have kept."""
        albums = self._albums
        own = {node: [float(self._steps[node]), self.at_s, float(albums.newest[node])] for node in self._states}
        steps, seconds, rows = zip(*driver.gather(own), strict=True)
        self.at_s, self._least, self._has_met = max(seconds), int(min(steps)), True
        self.round = round(sum(steps) / len(steps))
        if self.is_over and min(rows) < self.last_row:
            albums.keep_all(self.last_row, {node: self.ended_s(node) for node in self._states})
            rows = (self.last_row,)
        albums.measure_until(int(min(rows)))

    def begin_segment(self) -> None:
        """Until when nodes begin steps; from a cut on they go on."""
        every, every_s, pace = self._cuts.every, self._cuts.every_s, self._pace
        if pace.duration_s is not None:
            self._until_s = min(pace.duration_s, inf if every_s is None else self.at_s + every_s)
        else:
            self._goal = min(pace.rounds, pace.rounds if every is None else every * (self._least // every + 1))
        for node, state in self._states.items() if self._has_met else ():
            self._peers[node].round = self._steps[node]
            self._algorithm.go_on(state, self._peers[node])

    def end_segment(self) -> None:
        """In a simulator time goes by even where every node waits for ever."""
        if self.is_timed and not self._cuts.is_wanted():
            self.at_s = max(self.at_s, self._until_s)

    def ended_s(self, node: int) -> float:
        """When a node's last step ended, or the time was over."""
        return max(self._ended_s[node], self._pace.duration_s or 0.0)

    def steps_made(self, node: int) -> int:
        return self._steps[node]

    def begin(self, node: int, now_s: float) -> Step | None:
        made = self._steps[node]
        if (now_s >= self._until_s if self.is_timed else made >= self._goal) or self._cuts.is_wanted():
            return None
        self._peers[node].round = made
        self._states[node].local.begin_round(made)
        self._objectives[node].begin_step()
        return self._algorithm.step(self._states[node], self._peers[node])

    def end(self, node: int, loss: Tensor, now_s: float) -> None:
        check_finite({node: loss}, self._steps[node])
        self._steps[node] += 1
        self._ended_s[node] = now_s
        self._albums.losses[node] = loss
        row, rest = divmod(self._steps[node], self._pace.evaluate_every)
        if not self.is_timed and not rest and row < self.last_row:
            self._albums.keep(row, node, now_s)

    def serve(self, node: int) -> Step:
        return self._algorithm.serve(self._states[node], self._peers[node])

    def look_s(self) -> float:
        if self._pace.duration_s is None or self._looks + 1 >= self.last_row:
            return inf
        return (self._looks + 1) * self._every_s()

    def look(self, now_s: float) -> None:
        self._looks += 1
        self._albums.keep_all(self._looks, dict.fromkeys(self._states, now_s))

    def rejoin(self, node: int, now_s: float) -> tuple[int, int] | None:  # noqa: ARG002
        sources = self._peers[node].row().sources
        if not sources:
            return None
        neighbor = max(sources, key=self._steps.__getitem__)
        x = self._states[node].x.copy_(self._states[neighbor].x)
        return neighbor, HEADER_BYTES + x.nbytes

    def _every_s(self) -> float:
        assert self._pace.duration_s is not None
        return self._pace.evaluate_every_s or self._pace.duration_s / 20
