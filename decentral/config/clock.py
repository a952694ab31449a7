"""The section `clock:`, virtual time of simulated runs: what takes how long, what is lost, and who is away when."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from decentral.config.section import Named, Section, tag


class ConstantTime(Section):
    """Each gradient takes its node's `gradient_s`."""

    name: Literal["constant"] = "constant"


class LogNormalTime(Section):
    """Log-normal times, of which `gradient_s` is the mean."""

    name: Literal["log-normal"]
    sigma: float = Field(0.5, gt=0, le=5)
    """Standard deviation of the logarithm."""


class ExponentialTime(Section):
    """A least time and an exponential rest; `gradient_s` is the mean of the whole."""

    name: Literal["exponential"]
    least: float = Field(0.0, ge=0, lt=1)
    """The least time, as a share of the mean."""


class TwoSpeedTime(Section):
    """Most gradients take `gradient_s`, and some, at random, so many times longer."""

    name: Literal["two-speed"]
    slowdown: float = Field(10.0, gt=1)
    """How many times longer a slow one takes."""
    share: float = Field(0.1, gt=0, lt=1)
    """Of all gradients, the slow ones."""


class TraceTime(Section):
    """Times that were measured: a text file of seconds, a line for each gradient, from the top again at its end."""

    name: Literal["trace"]
    file: Path
    """With one number a line, the same for all nodes, or one for each node, separated by commas."""


ComputeTime = Annotated[
    Annotated[ConstantTime, Tag("constant")]
    | Annotated[LogNormalTime, Tag("log-normal")]
    | Annotated[ExponentialTime, Tag("exponential")]
    | Annotated[TwoSpeedTime, Tag("two-speed")]
    | Annotated[TraceTime, Tag("trace")],
    Discriminator(tag),
    Named,
]


class Interval(Section):
    """A node, and when something is the matter with it: once, from `from_s` to `until_s`, or again and again."""

    node: int = Field(ge=0)
    """Which."""
    from_s: float = Field(0.0, ge=0)
    """When it begins, at the earliest."""
    until_s: float | None = Field(None, gt=0)
    """When it is over; null for never."""
    every_s: float | None = Field(None, gt=0)
    """Mean seconds without it between two times, drawn at random; null for one time, which begins at from_s."""
    lasting_s: float | None = Field(None, gt=0)
    """Mean seconds of each time, drawn at random; required with every_s."""


class SlowTime(Interval):
    """A straggler: gradients that are slowed down, or stand still, while it lasts."""

    slowdown: float | None = Field(None, gt=1)
    """How many times slower; null stands still."""
    cpu: float | None = Field(None, ge=0.01, lt=1)
    """In place of slowdown and times: the share of one core that the operating system gives the process, by a cgroup.

    That takes root on Linux. A simulated node is 1/cpu times slower.
    """


class Crash(Interval):
    """A node that is down: what it was at is lost, and what it is sent arrives when it is back."""

    rejoin: Literal["own", "neighbor"] = "own"
    """What it comes back with: its own state, or the model of the neighbor that has made the most steps.

    Synchronous methods have no use for another's model: their nodes wait for one that is down.
    """


class LinkTime(Section):
    """What a message takes on one link, in either direction, where it is another than on the rest."""

    between: tuple[int, int]
    """The two nodes."""
    latency_s: float = Field(0.0, ge=0)
    """Seconds, one way."""
    rate_bit_s: float | None = Field(None, gt=0)
    """Bits a second; no limit unless given."""
    loss: float | None = Field(None, ge=0, le=0.9)
    """Share of messages that are lost; the clock's own unless given."""


class Clock(Section):
    """Virtual time of `simulate` and of simulated comparisons: what takes how long. All else takes none.

    What is drawn at random is drawn from the run's seed, so the same run gives the same times on any machine.
    """

    gradient_s: float | list[float] = Field(0.01)
    """Seconds of one gradient; a list has one number for each node."""
    varies: ComputeTime = ConstantTime()
    """How gradients differ in time: constant, log-normal, exponential, two-speed, or a trace of measured ones."""
    stragglers: list[SlowTime] = Field([])
    """Nodes that are slower for a while, or again and again."""
    crashes: list[Crash] = Field([])
    """Nodes that are down for a while, or again and again."""
    latency_s: float = Field(0.001, ge=0)
    """Of a message on any link, one way."""
    rate_bit_s: float | None = Field(1e9, gt=0)
    """Of each link in each direction, bits a second; null for no limit."""
    node_rate_bit_s: float | None = Field(None, gt=0)
    """Of each node's own connection in each direction, which all its links share; null for no limit but theirs."""
    links: list[LinkTime] = Field([])
    """Links that differ."""
    loss: float = Field(0.0, ge=0, le=0.9)
    """Share of messages that are lost on any link, and of their acknowledgments.

    Where some are, a link sends one at a time, again and again until it is acknowledged.
    """
    retransmit_s: float = Field(0.05, gt=0)
    """How long after sending a lost message is sent again; more than a message and its acknowledgment are under way."""
    starving: int = Field(1000, ge=1)
    """After how many steps of the mean node a node that is not down and made none itself is an error."""
    log: bool = False
    """Write `events.jsonl` into the folder of each run: each gradient, message and step with its time."""
    replay: Path | None = None
    """A log to take all times from, in place of all that is above."""
