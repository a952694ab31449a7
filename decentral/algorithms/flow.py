"""What mixing changes at a node, as the sum of what flows to it along each edge.

`sum_j w_ij x_j - x_i = sum_j w_ij (x_j - x_i)` where a row sums to 1. In finite precision it does not: 1/3 in float32
is too large by 1e-8, so with every mixing as on the left the mean of all grows by as much. A model does not notice, since
gradients pull it back; the sum of all mixings, which a correction is, would drift without bound. On the right each term
is, to the bit, the negative of the one at the edge's other end if W is symmetric, and the terms vanish with agreement.
"""

from collections.abc import Mapping

from torch import Tensor

from decentral.fused import flow_into, is_fusible
from decentral.peer import Payload, Peer


def flow(peer: Peer, x: Tensor, received: Mapping[int, Payload], out: Tensor, place: int = 0) -> Tensor:
    """`out <- sum_j w_ij (x_j - x_i)`, summed in ascending j.

    Args:
        x: `(d,)`, what this node sent.
        received: by neighbor, in answer to that.
        out: `(d,)`, none of the others; it may be of a wider dtype.
        place: of the vector in each payload.
    """
    if out.is_meta:  # a dry run has no numbers
        return out
    weights = [(j, weight) for j, weight in sorted(peer.row().weights.items()) if j != peer.node]
    vectors = [received[j][place] for j, _ in weights]
    if is_fusible([out, x, *vectors]):
        flow_into(out, x, [weight for _, weight in weights], vectors)
        return out
    out.zero_()
    for (_, weight), vector in zip(weights, vectors, strict=True):
        out.add_((vector.to(out.dtype) - x).mul_(weight))
    return out
