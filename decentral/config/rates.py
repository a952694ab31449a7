"""How the learning rate changes over the rounds: a schedule is a section of `optimizer:` and a function of the round.

With warmup = w the first w rounds take 1/w, 2/w, ... of what the schedule says, so that no round has a rate of 0. The
rate of a round depends on its number alone: nothing is to be saved, and every method and every baseline has the same.
"""

from abc import ABC, abstractmethod
from math import cos, pi
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from decentral.config.section import Named, Section, tag


class Rate(Section, ABC):
    """A factor on the learning rate, by the number of the round."""

    warmup: int = Field(0, ge=0)
    """Rounds over which the rate rises in equal steps."""

    def factor(self, round: int, rounds: int) -> float:
        """What `lr` is multiplied by in a round, 0, 1, 2, ..., of an experiment of so many rounds."""
        return self._after_warmup(round, rounds) * min(1.0, (round + 1) / max(self.warmup, 1))

    @abstractmethod
    def _after_warmup(self, round: int, rounds: int) -> float: ...


class Constant(Rate):
    """The same rate in all rounds, but for the warm-up."""

    name: Literal["constant"] = "constant"

    def _after_warmup(self, round: int, rounds: int) -> float:  # noqa: ARG002  as the others
        return 1.0


class Step(Rate):
    """The rate drops by a factor at some rounds."""

    name: Literal["step"]
    at: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    """Rounds from which on the rate is lower: after so many completed rounds it drops."""
    by: float = Field(0.1, gt=0, lt=1)
    """What each drop multiplies the rate by."""

    def _after_warmup(self, round: int, rounds: int) -> float:  # noqa: ARG002  as the others
        return float(self.by ** sum(round >= drop for drop in self.at))


class Falling(Rate):
    """The rate falls from `lr` to `final` of it."""

    rounds: int | None = Field(None, ge=1)
    """Rounds until it has fallen; the experiment's own number unless given. It stays there in later rounds."""
    final: float = Field(0.0, ge=0, le=1)
    """What is left of the rate at the end."""

    def _after_warmup(self, round: int, rounds: int) -> float:
        done = min(1.0, round / (self.rounds or rounds))
        return self.final + (1 - self.final) * self._left(done)

    @abstractmethod
    def _left(self, done: float) -> float:
        """What is left of the way, from 1 to 0, with this part of the rounds done."""


class Cosine(Falling):
    """The rate falls along half a cosine: slowly, fast, slowly (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"]

    def _left(self, done: float) -> float:
        return (1 + cos(pi * done)) / 2


class Linear(Falling):
    """The rate falls in equal steps."""

    name: Literal["linear"]

    def _left(self, done: float) -> float:
        return 1 - done


LearningRate = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Step, Tag("step")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Linear, Tag("linear")],
    Discriminator(tag),
    Named,
]


def needs_rounds(rate: LearningRate) -> bool:
    """Whether it depends on how many rounds the experiment has."""
    return isinstance(rate, Falling) and rate.rounds is None
