"""Tokens that keep their own number: they fork where too few seem to live, and drop out where too many do.

No node knows how many tokens there are. Node i notes when it last saw each token, L_l, and how long tokens took to come
back, R. At a visit of token k at time t it estimates half of their number,

    theta = 1/2 + sum_{l /= k} P(R > t - L_l),

to which each living token adds 1/2 in the mean, and a lost one less and less. With Z tokens at the start, and
probability 1 / Z at each visit, the token

    forks  where theta < epsilon                (DECAFORK)
    drops  where theta > epsilon_2              (DECAFORK+)

P is the share of the node's own returns, to which the law of mean 1 / mu_i counts as one more: Kac's mean, as if
returns had no memory. At the start a node takes it that it has just seen all tokens, and until ten mean return times
have passed nothing is decided: of returns so far, the short ones are too many.

Reference: Egger, Bitar, Ayache, Wachter-Zeh and El Rouayheb 2024 (arXiv:2407.11762).
"""

from bisect import bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from math import isfinite
from typing import Literal

import numpy as np

from decentral.errors import ConfigError
from decentral.seeding import integer_seed
from decentral.topology import hops
from decentral.topology.chains import Chain
from decentral.topology.hops import NOWHERE, Floats, Integers
from decentral.topology.walks import first_node, key

MOST_RETURNS = 4096
"""So many returns tell a node the law of all."""
FORGOTTEN = 20
"""A token that has not come for so many mean return times is not waited for."""
WARM_UP = 10
"""Mean return times of a node before what it knows decides."""
MOST_TOKENS = 10_000
"""More at once, and the numbers that regulate them are no good."""

Fate = Literal["goes on", "forks", "drops"]


@dataclass(frozen=True)
class Regulation:
    """When tokens fork and drop.

    Args:
        fork_below: epsilon; about half of the fewest tokens that are to live.
        drop_above: epsilon_2, more than that; None: none drops.
        tokens: Z, how many there are at the start.
        visits: of each token, at one of which it may; 1 where it is asked for each.

    Raises:
        ConfigError: a number out of bounds.
    """

    fork_below: float
    drop_above: float | None
    tokens: int
    visits: int = 1

    def __post_init__(self) -> None:
        if not (isfinite(self.fork_below) and self.fork_below > 0):
            raise ConfigError(f"tokens fork below {self.fork_below:g}; required: a finite number above 0")
        if self.fork_below >= self.tokens / 2:
            raise ConfigError(
                f"tokens fork below {self.fork_below:g}, and half of the {self.tokens} at the start are not more, so "
                f"they would fork from the start on; required: less than {self.tokens / 2:g}, or more tokens"
            )
        if self.drop_above is not None and not (isfinite(self.drop_above) and self.drop_above > self.fork_below):
            raise ConfigError(
                f"tokens fork below {self.fork_below:g} and drop above {self.drop_above:g}; required: a finite number "
                "above the first one"
            )

    @property
    def chance(self) -> float:
        """That a token forks or drops, where it seems right."""
        return 1 - (1 - 1 / self.tokens) ** self.visits

    def fate(self, sightings: "Sightings", token: int, time: int, share: float, u: float) -> Fate:
        """What becomes of a token that a node has just noted.

        Args:
            sightings: the node's.
            token, time: whose visit, and which.
            share: of all visits, the node's, mu_i.
            u: in [0, 1).
        """
        if u >= self.chance or time * share < WARM_UP:
            return "goes on"
        estimate = sightings.estimate(token, time, share)
        if estimate < self.fork_below:
            return "forks"
        return "drops" if self.drop_above is not None and estimate > self.drop_above else "goes on"


@dataclass(slots=True)
class Sightings:
    """What one node knows of the tokens.

    Args:
        last: when each was here.
        returns: ascending, how long they took to come back, in visits of a token.
    """

    last: dict[int, int]
    returns: list[int] = field(default_factory=list)

    def note(self, token: int, time: int) -> None:
        """A token is here; once at a time."""
        if time == self.last.get(token):
            return
        if token in self.last and len(self.returns) < MOST_RETURNS:
            insort(self.returns, time - self.last[token])
        self.last[token] = time

    def estimate(self, token: int, time: int, share: float) -> float:
        """theta, at a token's visit; `share` is the node's of all visits, mu_i."""
        theta, lost = 0.5, []
        for other, seen in self.last.items():
            if other == token:
                continue
            age = max(time - seen, 0)
            if age * share > FORGOTTEN:
                lost.append(other)
            longer = len(self.returns) - bisect_right(self.returns, age)
            theta += (longer + (1 - share) ** age) / (len(self.returns) + 1)
        for other in lost:
            del self.last[other]
        return theta


def fate_key(seed: int, token: int) -> np.uint64:
    """What the random numbers of one token's fate derive from."""
    return np.uint64(integer_seed(seed, token, "fate"))


@dataclass(slots=True)
class _Living:
    number: int
    node: int
    previous: int
    counts: Floats | None  # (n,) of a walk that remembers

    def fork(self, number: int) -> "_Living":
        return _Living(number, self.node, self.previous, None if self.counts is None else self.counts.copy())


class Population:
    """Tokens that walk over a graph together, each with one visit in a step.

    Args:
        chain: how they walk.
        seed: theirs.
        tokens: how many there are at the start.
        regulation: None for none.
        loss: the probability that a hop loses its token.
    """

    def __init__(
        self, chain: Chain, seed: int, tokens: int, regulation: Regulation | None = None, loss: float = 0.0
    ) -> None:
        self.chain, self.regulation, self.loss = chain, regulation, loss
        self._around = cache(chain.surroundings)
        self._walk_key, self._fate_key = cache(partial(key, seed)), cache(partial(fate_key, seed))
        self._sightings = [Sightings(dict.fromkeys(range(tokens), 0)) for _ in range(chain.n)]
        self._ever, self._time = tokens, 0
        self.living: list[_Living] = []
        for k in range(tokens):
            counts = chain.initial_counts() if chain.walk.remembers else None
            self.living.append(_Living(k, first_node(seed, k, chain.n), NOWHERE, counts))

    def run(self, steps: int, kills: Mapping[int, int]) -> Integers:
        """`(steps,)`: how many tokens live after each step.

        Args:
            steps: 1 or more.
            kills: how many are lost before each step named.

        Raises:
            ConfigError: more than MOST_TOKENS live.
        """
        population = np.zeros(steps, dtype=np.int64)
        for step in range(steps):
            del self.living[: kills.get(step, 0)]
            walking, self.living = self.living, []
            for token in walking:
                self._visit(token)
            self.living.sort(key=lambda token: token.number)
            self._time += 1
            population[step] = len(self.living)
            if len(self.living) > MOST_TOKENS:
                raise ConfigError(
                    f"more than {MOST_TOKENS} tokens live after {step} steps; fork below a lower estimate"
                )
        return population

    def _visit(self, token: _Living) -> None:
        time, number = self._time, token.number
        if time > 0:
            here = self._around(token.node)
            counts = None if token.counts is None else token.counts[here.whose]
            to = here.next_node(float(hops.uniform(self._walk_key(number), time)), counts, token.previous)
            token.previous, token.node = token.node, to
        if token.counts is not None:
            token.counts[token.node] += 1
        u = float(hops.uniform(self._fate_key(number), time))
        if u >= 1 - self.loss:
            return
        known, share = self._sightings[token.node], float(self.chain.target[token.node])
        known.note(number, time)
        fate = self.regulation.fate(known, number, time, share, u) if self.regulation else "goes on"
        if fate == "forks":
            self.living.append(token.fork(self._ever))
            known.last[self._ever] = time
            self._ever += 1
        if fate != "drops":
            self.living.append(token)


def recovery(population: Integers, since: int, least: int) -> int | None:
    """Steps from one until so many tokens live again; None: they never do."""
    enough = np.flatnonzero(population[since:] >= least)
    return int(enough[0]) if len(enough) else None
