"""What neighbors know of a vector of mine: a public copy, which messages of compressed differences keep up to date.

    q_i = C(v_i - h_i);    h_i+ = h_i + a q_i;    s_i+ = s_i + a sum_j w_ij q_j      so that s_i = sum_j w_ij h_j

v_i is node i's vector and h_i its public copy, which every neighbor could compute from what it was sent. What a node
needs of all its neighbors' copies is their sum s_i, so two vectors are enough, whatever the degree, as long as W stays
the same. Where it changes, whoever was not linked in a turn misses its messages. There each edge has copies of its own,
h_ij of what j knows of i, and both ends have both:

    q_ij = C(v_i - h_ij);    h_ij+ = h_ij + q_ij;    x_i+ = x_i + gamma sum_j w_ij (h_ji - h_ij)

Both ends of an edge add the same bits to the same copy. What mixing adds is, with a symmetric W, minus what the other
end adds, so the mean of all x stays where it is, whatever C and gamma are.

Reference: Koloskova, Stich and Jaggi 2019 (arXiv:1902.00340), Algorithms 2 and 5 (the second with the sum).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from decentral.algorithms.flow import add_difference_
from decentral.compression import Compressor, Key, Named, Space, compressor_of, require_kernels, section_of, warm_up
from decentral.compression.on_gpu import is_on_gpu
from decentral.errors import ConfigError
from decentral.peer import Payload, Peer


@dataclass(slots=True)
class PublicCopy:
    """Of one vector, under a W that stays the same."""

    own: Tensor  # (d,) h_i
    mixed: Tensor  # (d,) s_i
    packed: Tensor  # q_i, the message
    memory: Tensor | None  # the compressor's

    @classmethod
    def of(cls, v: Tensor, compressor: Compressor, peer: Peer) -> "PublicCopy":
        """The copy that all nodes begin with, `v: (d,)`, the same at every node; zeros are such a vector."""
        return cls(v.clone(), v.clone(), compressor.message(v.device), compressor.memory(_key(peer)))

    def messages(
        self,
        v: Tensor,
        compressor: Compressor,
        peer: Peer,
        turn: int | None = None,  # noqa: ARG002  as EdgeCopies
        *,
        step: float = 1.0,
    ) -> Mapping[int, Payload]:
        """Take `v: (d,)` into my copy, `step` of the way, and say what that takes: by receiver, the same to all."""
        compressor.encode_difference(v, self.own, self.packed, _key(peer), step=step, memory=self.memory)
        return dict.fromkeys(peer.row().to, (self.packed,))

    def receive(
        self, received: Mapping[int, Payload], compressor: Compressor, peer: Peer, *, step: float = 1.0, place: int = 0
    ) -> None:
        """Take what neighbors sent, at a place of each payload, and what I did, into the sum of copies."""
        packed = {peer.node: self.packed} | {sender: payload[place] for sender, payload in received.items()}
        weights = {j: step * weight for j, weight in peer.row().weights.items()}
        compressor.add(self.mixed, weights, packed, _key(peer))

    def pull_(self, x: Tensor, gamma: float, peer: Peer, turn: int | None = None) -> Tensor:  # noqa: ARG002  as above
        """`x + gamma sum_j w_ij (h_j - h_i)`, in place."""
        return add_difference_(x, gamma, self.mixed, self.own)


@dataclass(slots=True)
class EdgeCopies:
    """Of one vector, under a symmetric W that changes: per neighbor, made when an edge is first used."""

    start: Tensor  # (d,) of every copy, the same at all nodes
    packed: Tensor  # the shape of every message
    own: dict[int, Tensor] = field(default_factory=dict)  # h_ij
    theirs: dict[int, Tensor] = field(default_factory=dict)  # h_ji
    sent: dict[int, Tensor] = field(default_factory=dict)  # q_ij of the last turn that had the edge
    memory: dict[int, Tensor | None] = field(default_factory=dict)

    @classmethod
    def of(cls, v: Tensor, compressor: Compressor, peer: Peer) -> "EdgeCopies":  # noqa: ARG003  as PublicCopy
        """All copies begin with `v: (d,)`, the same at every node."""
        return cls(v.clone(), compressor.message(v.device))

    def messages(self, v: Tensor, compressor: Compressor, peer: Peer, turn: int | None = None) -> Mapping[int, Payload]:
        """Take `v: (d,)` into its copies on this turn's edges, and say what that takes: by receiver."""
        to = peer.row(turn).to
        for j in to:
            if j not in self.own:
                self.own[j], self.theirs[j] = self.start.clone(), self.start.clone()
                self.sent[j], self.memory[j] = self.packed.clone(), compressor.memory(_key(peer))
            compressor.encode_difference(v, self.own[j], self.sent[j], _key(peer), memory=self.memory[j])
        return {j: (self.sent[j],) for j in to}

    def receive(self, received: Mapping[int, Payload], compressor: Compressor, peer: Peer) -> None:
        """Take what neighbors sent into the copies of them."""
        for j, (packed,) in sorted(received.items()):
            compressor.add(self.theirs[j], {j: 1.0}, {j: packed}, _key(peer))

    def pull_(self, x: Tensor, gamma: float, peer: Peer, turn: int | None = None) -> Tensor:
        """`x + gamma sum_j w_ij (h_ji - h_ij)`, in place."""
        for j, weight in sorted(peer.row(turn).weights.items()):
            if j != peer.node:
                add_difference_(x, gamma * weight, self.theirs[j], self.own[j])
        return x


def contractive(compression: Named, x: Tensor, peer: Peer, sums: torch.dtype | None = None) -> Compressor:
    """The compressor that is named, for `x: (d,)`, compiled if need be, for a method that keeps public copies with it.

    Args:
        sums: the dtype of what messages are added to; that of x unless given.

    Raises:
        ConfigError: it is not contractive, so that a copy would not come nearer to what it is a copy of; or it has no
            kernels, and x is on a GPU.
    """
    section = section_of(compression)
    compressor = compressor_of(section, Space.of(x, peer.layout))
    if compressor.contraction is None:
        raise ConfigError(
            f"found {section.name}, whose error may be larger than the vector itself, so a public copy kept with it "
            "would not converge; required: a contractive compressor (unbiased: false, more bits, or smaller blocks)",
            section.path or None,
        )
    return compiled(compression, x, peer, sums)


def unbiased(compression: Named, x: Tensor, peer: Peer, sums: torch.dtype | None = None) -> Compressor:
    """The same for a method that averages the compressor's errors out.

    Raises:
        ConfigError: it is not unbiased; or it has no kernels, and x is on a GPU.
    """
    section = section_of(compression)
    compressor = compressor_of(section, Space.of(x, peer.layout))
    if compressor.variance is None:
        raise ConfigError(
            f"found {section.name}, whose mean is not the vector itself; required: an unbiased compressor (qsgd, int8, "
            "natural, or random-k and sketch with unbiased: true), or a method for contractive ones such as choco or "
            "beer",
            section.path or None,
        )
    return compiled(compression, x, peer, sums)


def compiled(compression: Named, x: Tensor, peer: Peer, sums: torch.dtype | None = None) -> Compressor:
    """The same for a method that asks for no property of it.

    Raises:
        ConfigError: x is on a GPU, and the compressor has no kernels for it.
        MissingEnvironmentError: x is on a GPU, and triton is not installed.
    """
    section = section_of(compression)
    compressor = compressor_of(section, Space.of(x, peer.layout))
    if is_on_gpu(x):
        require_kernels(section, compressor)
    if not x.is_meta:
        warm_up(section, x.dtype, sums, x.device)
    return compressor


def settled(consensus_step: float | Literal["auto"]) -> float:
    """A consensus step that is known.

    Raises:
        ValueError: it is still to be found, as where a run is prepared.
    """
    if consensus_step == "auto":
        raise ValueError("consensus_step: auto is for ConsensusSteps.tuned to replace, before the first round")
    return consensus_step


def _key(peer: Peer) -> Key:
    return Key(peer.seed, peer.round, peer.node)
