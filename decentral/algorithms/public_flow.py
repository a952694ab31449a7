"""What mixing would change of neighbors' public copies, kept exactly enough to be added up over all rounds.

    q_i = C(v_i - h_i);    h_i+ = h_i + a q_i;    f_i+ = f_i + a sum_j w_ij (q_j - q_i)

with v_i node i's vector and h_i its public copy, so that f_i = sum_j w_ij (h_j - h_i): the s_i - h_i of `public_copy`.
There s_i and h_i have the model's precision, and whatever their rounding makes of the sum of all s_i - h_i, which
should be 0, stays in it. A model does not notice: gradients pull it back. A correction, which adds s_i - h_i up round
after round, would drift off with it. So f_i is one float64 vector, and what it is added to should be float64 too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.flow import correction
from decentral.compression import Compressor, Key
from decentral.peer import Payload, Peer


@dataclass(slots=True)
class PublicFlow:
    """Of one vector, under a W that stays the same."""

    own: Tensor  # (d,) h_i
    flow: Tensor  # (d,) f_i, float64, of which the sum over all nodes is 0
    packed: Tensor  # q_i, the message
    memory: Tensor | None  # the compressor's
    place: int  # which of its node's messages in a round it is

    @classmethod
    def of(cls, v: Tensor, compressor: Compressor, peer: Peer, place: int = 0) -> "PublicFlow":
        """From the copy that all nodes begin with, `v: (d,)`, the same at every node; zeros are such a vector."""
        memory = compressor.memory(_key(peer, place))
        return cls(v.clone(), correction(v), compressor.message(v.device), memory, place)

    def pack(self, v: Tensor, compressor: Compressor, peer: Peer, step: float = 1.0) -> Tensor:
        """Take `v: (d,)` into my copy, `step` of the way, and say in the message, which it returns, what that takes."""
        key = _key(peer, self.place)
        return compressor.encode_difference(v, self.own, self.packed, key, step=step, memory=self.memory)

    def receive(self, received: Mapping[int, Payload], compressor: Compressor, peer: Peer, step: float = 1.0) -> None:
        """Take what neighbors sent, and what I did, into the flow."""
        self.add_(self.flow, step, received, compressor, peer)

    def add_(
        self, total: Tensor, share: float, received: Mapping[int, Payload], compressor: Compressor, peer: Peer
    ) -> Tensor:
        """`total + share * sum_j w_ij (q_j - q_i)`, in place, of what was sent in this round; `total: (d,)` float64."""
        weights = {j: share * weight for j, weight in peer.row().weights.items() if j != peer.node}
        weights[peer.node] = -sum(weights.values())
        packed = {sender: payload[self.place] for sender, payload in received.items()} | {peer.node: self.packed}
        compressor.add(total, weights, packed, _key(peer, self.place))
        return total


def _key(peer: Peer, place: int) -> Key:
    return Key(peer.seed, peer.round, peer.node, place)
