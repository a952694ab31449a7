"""What a step will take: the bytes of a dry run, over a link and a machine whose rates are known.

With S the bytes of a frame, r the receivers and s the sources of an exchange, d the larger of the two, f its messages
that differ, B the link's rate in each direction, a its one-way latency, n the nodes, M the bytes of the model, m the
machine's memory rate and l its rate of copying through a socket:

    exchange       wire max(d S / B, d S / l), latency a, mixing ((2 f + s) S + 2 M) / m
    all-reduce     2 (n-1) hops, wire c = max(M / (n B), M / (n l)) and latency max(h a - c / 2, 0) each,
                   mixing (4 + 3 (n-1)/n) M / m
    DDP            the same, bucket by bucket behind the backward pass
    gather         n-1 hops, wire c = max(S / B, S / l) and latency max(h a - c / 2, 0) each,
                   mixing ((2 + 4 n) S + 2 M) / m

gloo's rendezvous makes a hop of its all-reduce or its gather take h one-way latencies, behind which half of the next
piece is sent. What an exchange hides is what it has in common with the gradients between its beginning and its end;
where ranks share cores that are all busy, copying takes its time from the computation and hides nothing. Neighbors who
share memory have no wire between them. Not counted: lost packets, jitter, the waits of ranks for each other, making and
reading compressed messages, and the slow start of a TCP connection that was idle for longer than its timeout, at least
0.2 s.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from decentral.transport.dry import Exchanged, Reduced, Round

TCP_GOODPUT = 0.956
"""Share of a link's rate that is left for data in TCP segments of 1500-byte packets."""

CARRIED_SHARE = 0.9
"""Of a link's rate for data: what was carried below that was limited by something else."""

ALL_REDUCE_LATENCIES = 2.9
"""One-way latencies that a hop of gloo's all-reduce takes, two of them for its rendezvous: measured, 4 kB at 10 ms.

In whole steps of four hosts at 10 ms a hop took 2.2 of an all-reduce of 19 kB, and 2.4 of a gather of 0.3 kB."""

BUCKETS_AT_ONCE = 2
"""All-reduces that torch's gloo groups perform at a time, each in a thread."""

BACKWARD_SHARE = 2 / 3
"""Of a step's computation: a backward pass does twice the arithmetic of a forward pass."""

FIRST_BUCKET_BYTES, BUCKET_BYTES = 1 << 20, 25 << 20
"""From which sizes on DDP closes its first bucket, and each further one."""


@dataclass(frozen=True)
class Link:
    """Each host's link, the same in both directions."""

    rate_bit_s: float | None  # None: no limit
    latency_s: float = 0.0  # one way, from host to host
    carried_bytes_s: float | None = None  # what all hosts at once were seen to send, where that was tried

    @property
    def bytes_s(self) -> float:
        """What is left of its rate for data."""
        carried = math.inf if self.carried_bytes_s is None else self.carried_bytes_s
        return min(carried, self._left_for_data_bytes_s)

    @property
    def waits_for_cores(self) -> bool:
        """Whether the hosts' cores, and not the rate, were seen to limit it."""
        return self.bytes_s < CARRIED_SHARE * self._left_for_data_bytes_s

    @property
    def _left_for_data_bytes_s(self) -> float:
        return math.inf if self.rate_bit_s is None else TCP_GOODPUT * self.rate_bit_s / 8


@dataclass(frozen=True)
class Machine:
    """What one rank has of its host, with all ranks at work that it shares the host with."""

    memory_bytes_s: float  # read and written, together
    loopback_bytes_s: float  # sent through a TCP socket, while as much is received
    spare_core: bool = True  # whether the system can copy beside the computation


@dataclass(frozen=True)
class Setting:
    """Where a method runs.

    Args:
        nodes: how many.
        model_bytes: of the flat vector.
        compute_s: of one step without communication, all ranks at work.
        link: between hosts; None where all nodes are on one host.
        shares_memory: whether neighbors on one host read each other's messages in place.
    """

    nodes: int
    model_bytes: int
    compute_s: float
    machine: Machine
    link: Link | None = None
    shares_memory: bool = True


@dataclass(frozen=True)
class Prediction:
    """Seconds of one step by part."""

    compute_s: float = 0.0
    wire_s: float = 0.0
    latency_s: float = 0.0
    mixing_s: float = 0.0  # passes over memory that communication needs
    hidden_s: float = 0.0  # of the wire and the latency, behind the computation

    @property
    def communication_s(self) -> float:
        """Whether hidden or not."""
        return self.wire_s + self.latency_s + self.mixing_s

    @property
    def step_s(self) -> float:
        return self.compute_s + self.communication_s - self.hidden_s

    @property
    def efficiency(self) -> float:
        """Share of the step that computes; 1 where there is nothing to do."""
        return self.compute_s / self.step_s if self.step_s else 1.0


def predict(nodes: Iterable[Sequence[Round]], setting: Setting) -> Prediction:
    """The mean step of a method.

    Args:
        nodes: the same rounds of one node or several, by their dry runs; in each round the slowest counts.
    """
    rounds = [[_round(one, setting) for one in same] for same in zip(*nodes, strict=True)]
    slowest = [max(same, key=lambda cost: cost.step_s) for same in rounds]
    return Prediction(*(sum(part) / len(slowest) for part in zip(*map(astuple, slowest), strict=True)))


def predict_ddp(tensors: Sequence[int], setting: Setting) -> Prediction:
    """The step of DDP.

    Args:
        tensors: bytes of each parameter, in the model's order.
    """
    if setting.nodes == 1:
        return Prediction(setting.compute_s)
    backward_s = BACKWARD_SHARE * setting.compute_s
    reductions = [Reduced(size, setting.nodes) for size in buckets(tensors)]
    wire_s = sum(_all_reduce(reduced, setting)[0] for reduced in reductions)
    mixing_s = sum(_summing(reduced, setting) for reduced in reductions)
    alone_s = _reduced_after(reductions, 0.0, setting)
    exposed_s = max(_reduced_after(reductions, backward_s, setting) - backward_s, _copying_share(setting) * wire_s)
    return Prediction(setting.compute_s, wire_s, alone_s - wire_s, mixing_s, max(alone_s - exposed_s, 0.0))


def _reduced_after(buckets: Sequence[Reduced], backward_s: float, setting: Setting) -> float:
    """Seconds from the beginning of a backward pass until the last of its buckets is reduced."""
    total = sum(bucket.vector_bytes for bucket in buckets)
    ready_s = wire_free_s = 0.0
    ends = [0.0] * BUCKETS_AT_ONCE
    for bucket in buckets:
        wire_s, latency_s = _all_reduce(bucket, setting)
        ready_s += backward_s * bucket.vector_bytes / total
        wire_free_s = max(ready_s, wire_free_s) + wire_s
        ends.append(max(wire_free_s, max(ready_s, ends[-BUCKETS_AT_ONCE]) + wire_s + latency_s))
    return max(ends)


def buckets(tensors: Sequence[int]) -> list[int]:
    """Bytes of DDP's buckets, first to last: whole gradients in the order in which the backward pass brings them."""
    closed, filling, limit = [], 0, FIRST_BUCKET_BYTES
    for size in reversed(tensors):
        filling += size
        if filling >= limit:
            closed.append(filling)
            filling, limit = 0, BUCKET_BYTES
    return [*closed, filling] if filling else closed


def _round(did: Round, setting: Setting) -> Prediction:
    """One round at one node."""
    memory_s = 1 / setting.machine.memory_bytes_s
    compute_s = did.gradients * setting.compute_s
    wire_s = latency_s = mixing_s = hidden_s = 0.0
    for exchange in did.exchanges:
        if not (exchange.receivers or exchange.sources):
            continue
        wire, latency = _exchange(exchange, setting)
        touched = (2 * exchange.messages + exchange.sources) * exchange.frame_bytes + 2 * setting.model_bytes
        behind = did.gradients if exchange.behind is None else exchange.behind
        hidden_s += min(wire * (1 - _copying_share(setting)) + latency, behind * setting.compute_s)
        wire_s, latency_s, mixing_s = wire_s + wire, latency_s + latency, mixing_s + touched * memory_s
    for reduced in did.reductions:
        wire, latency = _all_reduce(reduced, setting)
        mixing_s += _summing(reduced, setting)
        wire_s, latency_s = wire_s + wire, latency_s + latency
    for gathered in did.gathers:
        wire, latency = _hops(gathered.nodes - 1, gathered.frame_bytes, setting)
        touched = (2 + 4 * gathered.nodes) * gathered.frame_bytes + 2 * setting.model_bytes
        wire_s, latency_s, mixing_s = wire_s + wire, latency_s + latency, mixing_s + touched * memory_s
    return Prediction(compute_s, wire_s, latency_s, mixing_s, min(hidden_s, compute_s))


def _exchange(exchange: Exchanged, setting: Setting) -> tuple[float, float]:
    """Seconds on the wire, and of latency."""
    if setting.link is None and setting.shares_memory:
        return 0.0, 0.0
    busier = max(exchange.receivers, exchange.sources)
    return _sent(busier * exchange.frame_bytes, setting), setting.link.latency_s if setting.link else 0.0


def _all_reduce(reduced: Reduced, setting: Setting) -> tuple[float, float]:
    """Seconds on the wire, and of latency, of gloo's ring all-reduce."""
    return _hops(2 * (reduced.nodes - 1), reduced.vector_bytes / reduced.nodes, setting)


def _hops(hops: int, size: float, setting: Setting) -> tuple[float, float]:
    """Seconds on the wire, and of latency, of so many hops on gloo's ring, so many bytes in each."""
    wire_s = _sent(size, setting)
    waited_s = ALL_REDUCE_LATENCIES * setting.link.latency_s if setting.link else 0.0
    return hops * wire_s, hops * max(waited_s - wire_s / 2, 0.0)


def _sent(size: float, setting: Setting) -> float:
    """Seconds in which a node sends so many bytes and receives as many."""
    return max(size / setting.machine.loopback_bytes_s, size / setting.link.bytes_s if setting.link else 0.0)


def _summing(reduced: Reduced, setting: Setting) -> float:
    """Seconds of the passes over memory of an all-reduce: into its buffer, out of it, and its sums."""
    passes = 4 + 3 * (reduced.nodes - 1) / reduced.nodes if reduced.nodes > 1 else 0.0
    return passes * reduced.vector_bytes / setting.machine.memory_bytes_s


def _copying_share(setting: Setting) -> float:
    """The share of the wire's time in which this rank's core copies, and so does not compute."""
    if setting.machine.spare_core:
        return 0.0
    if setting.link is None or setting.link.waits_for_cores:
        return 1.0
    return min(setting.link.bytes_s / setting.machine.loopback_bytes_s, 1.0)
