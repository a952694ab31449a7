"""DCD-PSGD: what a round changes of a model is compressed, and the model takes no more of it than was sent.

With W the mixing matrix, eta the learning rate, g_i(.) node i's minibatch gradient and C a compressor:

    h_i  = sum_j w_ij x_j - eta g_i(x_i)
    x_i+ = x_i + C(h_i - x_i)

So each neighbor's copy of x_i is x_i, and nothing is left to be sent later. There is no gamma that could be made
smaller: where an unbiased C's error is more than W makes up for, models diverge, as they do with 2 bits or with a
quarter of the numbers at random, and a biased C makes the mean of all models go another way than the mean gradient.
It is here to be compared with. `- eta g` stands for the step of whichever local optimizer is chosen. All nodes must
begin with the same model.

    x   state.x, between rounds state.copies.own too    sum_j w_ij x_j   state.copies.mixed

Reference: Tang, Gan, Zhang, Zhang and Liu 2018 (arXiv:1803.06443), Algorithm 1.
"""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.public_copy import PublicCopy, compiled
from decentral.compression import Named, Space, compressor_of
from decentral.peer import Peer
from decentral.topology.lazy import refuse_changing
from decentral.topology.topology import Topology


@dataclass(slots=True)
class DCDState(State):
    copies: PublicCopy


@dataclass(frozen=True, kw_only=True)
class DCD(Algorithm):
    compression: Named

    @property
    def starts_alike(self) -> bool:
        return True

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "DCD-PSGD")
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> DCDState:
        copies = PublicCopy.of(x, compiled(self.compression, x, peer), peer)
        return DCDState(x=x, local=self.local.bind(x, peer.layout), copies=copies)

    async def step(self, state: DCDState, peer: Peer) -> Tensor:
        compressor = compressor_of(self.compression, Space.of(state.x, peer.layout))
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        state.copies.pull_(state.x, 1.0, peer)  # x is h now
        state.copies.messages(state.x, compressor, peer)
        state.x.copy_(state.copies.own)
        received = await peer.exchange((state.copies.packed,))
        state.copies.receive(received, compressor, peer)
        return loss
