"""What mixing changes at a node, as the sum of what flows to it along each edge; and the sum of that over all rounds.

`sum_j w_ij x_j - x_i = sum_j w_ij (x_j - x_i)` where a row sums to 1. In finite precision it does not: 1/3 in float32
is too large by 1e-8, so with every mixing as on the left the mean of all grows by as much. A model does not notice,
since gradients pull it back; the sum of all mixings, which a correction is, would drift without bound. On the right
each term is, to the bit, the negative of the one at the edge's other end if W is symmetric. Added up in float64, they
keep the sum of all nodes' corrections at 0.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from decentral.fused import add_flow, is_fusible
from decentral.peer import Payload, Peer


def correction(x: Tensor) -> Tensor:
    """Zeros `(d,)` to add flows up in, over all rounds: float64, whatever `x: (d,)` is."""
    return torch.zeros_like(x, dtype=torch.float64)


def add_flow_(
    total: Tensor, peer: Peer, x: Tensor, received: Mapping[int, Payload], place: int = 0, share: float = 1.0
) -> Tensor:
    """`total + share * sum_j w_ij (x_j - x_i)`, in place, in ascending j.

    Args:
        total: `(d,)`, none of the others; it may be of a wider dtype.
        x: `(d,)`, what this node sent.
        received: by neighbor, in answer to that.
        place: of the vector in each payload.
        share: 1/2 for (I + W)/2 in place of W.
    """
    if total.is_meta:  # a dry run has no numbers
        return total
    weights = [(j, share * weight) for j, weight in sorted(peer.row().weights.items()) if j != peer.node]
    vectors = [received[j][place] for j, _ in weights]
    if is_fusible([x, *vectors]) and is_fusible([total]):
        add_flow(total, x, [weight for _, weight in weights], vectors)
        return total
    for (_, weight), vector in zip(weights, vectors, strict=True):
        total.add_((vector - x).mul_(weight))
    return total


def add_difference_(total: Tensor, weight: float, vector: Tensor, own: Tensor) -> Tensor:
    """`total + weight * (vector - own)`, in place; all `(d,)`, and total none of the others."""
    if is_fusible([total, own, vector]):
        add_flow(total, own, [weight], [vector])
        return total
    return total.add_((vector - own).mul_(weight))
