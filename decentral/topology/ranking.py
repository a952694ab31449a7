"""Which topology of the gallery to pick: ranked by the predicted rate of D-SGD, per round or per second.

The ranking rests on n_W and not on the spectral gap. The gap is about the very last disagreement, long after a gradient
stopped to matter at the learning rates that are used: two cliques joined by one edge have a tiny gap and nearly the
variance reduction of a whole clique.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, log
from pathlib import Path

from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.contraction import contraction_of, turns_of
from decentral.topology.effective_neighbors import effective_neighbors
from decentral.topology.quadratic_rates import DEFAULT_NOISE, QuadraticRates
from decentral.topology.topology import Topology
from decentral.topology.traffic import Traffic, traffic


@dataclass(frozen=True)
class Link:
    """What a round's time is predicted from.

    Args:
        model_bytes: of a message.
        rate_bit_s: of every node's link, each way.
        latency_s: one way.
    """

    model_bytes: float
    rate_bit_s: float
    latency_s: float

    def round_seconds(self, sent: Traffic) -> float:
        """Seconds of a round in which the busiest node's messages share its link, and all travel at once."""
        return sent.round_messages * self.model_bytes * 8 / self.rate_bit_s + self.latency_s


@dataclass(frozen=True)
class Wish:
    """By what to rank.

    Args:
        gamma: by n_W at this gamma; None: by the predicted rate.
        learning_rate: at which the rate is taken; None: at each topology's best.
        noise: zeta of the quadratic.
        link: rank by the rate per second; None: per round.
    """

    gamma: float | None = None
    learning_rate: float | None = None
    noise: float = DEFAULT_NOISE
    link: Link | None = None


@dataclass(frozen=True)
class Entry:
    """A topology's place. `score` is what was ranked by: n_W, the rate per round, or -ln(1 - rate) per second."""

    name: str
    messages: int  # of the busiest node in a round
    gap: float
    neighbors: float  # n_W of the worst node, or of the mean node, at `gamma`
    gamma: float
    learning_rate: float
    rate: float | None  # None: not known at this learning rate
    largest_stable: float  # infinite: all up to 2
    round_s: float | None
    score: float | None
    rates: QuadraticRates


@dataclass(frozen=True)
class Omitted:
    """A topology of the gallery that is not ranked, and why."""

    name: str
    reason: str


def ranked(names: Iterable[str], nodes: int, degree_max: int | None, wish: Wish) -> tuple[list[Entry], list[Omitted]]:
    """The gallery's topologies of `nodes` nodes with their default options, the best first, and what was left out.

    Args:
        degree_max: messages that a node may send or receive in a round, at most.
    """
    entries, omitted = [], []
    for name in names:
        try:
            topology = gallery.load(example_with(topology=name).topology, nodes, Path())
            entries.append(_entry(name, topology, _affordable(topology, degree_max), wish))
        except ConfigError as error:
            omitted.append(Omitted(name, str(error)))
    return sorted(entries, key=lambda entry: (-_height(entry), entry.messages, entry.name)), omitted


def why_not_the_gap(entries: Sequence[Entry], wish: Wish) -> str:
    """A sentence, with the entry whose place by the gap is farthest below its place by n_W or the rate per round."""
    by_gap = sorted(entries, key=lambda entry: -entry.gap)
    by_rate = sorted(entries, key=lambda entry: -(entry.neighbors if wish.gamma is not None else entry.rate or -inf))
    names = [[entry.name for entry in order] for order in (by_rate, by_gap)]
    name = max(names[0], key=lambda name: names[1].index(name) - names[0].index(name))
    here, there = (order.index(name) + 1 for order in names)
    example = ""
    if there > here:
        of = "by n_W" if wish.gamma is not None else "by the rate per round"
        example = f": {name}, number {here} {of}, is number {there} of {len(entries)} by the gap"
    return (
        "ranked by n_W, the nodes whose gradients are averaged while they still matter, not by the spectral gap, which "
        f"is about the very last disagreement{example}"
    )


def _affordable(topology: Topology, degree_max: int | None) -> Traffic:
    found = traffic(topology)
    if degree_max is not None and found.messages_busiest > degree_max:
        raise ConfigError(f"its busiest node has {found.messages_busiest} neighbors in a round, above {degree_max}")
    return found


def _entry(name: str, topology: Topology, sent: Traffic, wish: Wish) -> Entry:
    found = effective_neighbors(topology)
    rates = QuadraticRates(found, wish.noise)
    best = rates.best()
    learning_rate = wish.learning_rate or best.learning_rate
    rate = rates.rate(learning_rate) if wish.learning_rate else best.rate
    gamma = wish.gamma
    if gamma is None:
        gamma = min(max(0.0, (1 - learning_rate) ** 2 / (1 - rate)), 1 - 1e-9) if rate is not None else 0.0
    at = found.at(gamma)
    if at is None:
        raise ConfigError(f"n_W could not be found at gamma={gamma:g}, where gossip on it is too slow")
    neighbors = at.mean if at.worst is None else at.worst
    round_s = None if wish.link is None else wish.link.round_seconds(sent)
    return Entry(
        name=name,
        messages=sent.messages_busiest,
        gap=contraction_of(topology.schedule, turns_of(topology.schedule), counted=False).gap,
        neighbors=neighbors,
        gamma=gamma,
        learning_rate=learning_rate,
        rate=rate,
        largest_stable=best.largest_stable,
        round_s=round_s,
        score=neighbors if wish.gamma is not None else _score(rate, round_s),
        rates=rates,
    )


def _score(rate: float | None, round_s: float | None) -> float | None:
    if rate is None or round_s is None:
        return rate
    per_round = -log(1 - rate) if rate < 1 else inf
    return per_round / round_s if round_s > 0 else inf


def _height(entry: Entry) -> float:
    return -inf if entry.score is None else entry.score
