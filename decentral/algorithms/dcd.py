"""DCD-PSGD: the difference of a round is compressed, and what was sent of it is all of it that a node takes itself.

With W the mixing matrix, eta the learning rate, g_i(.) node i's minibatch gradient and C a compressor:

    h_i  = sum_j w_ij x_j - eta g_i(x_i)
    x_i+ = x_i + C(h_i - x_i)

So each neighbor's copy of x_i is x_i, and no error is left to be sent later. It works while C's error is small: 8 bits
do. With less it diverges, or stands still where C leaves most out, since there is no step that could be made smaller;
it is here to be compared with. `- eta g` stands for the step of whichever local optimizer is chosen. All nodes begin
with the same model.

    x   state.x, and state.copies.own until the gradient    sum_j w_ij x_j   state.copies.mixed

Reference: Tang, Gan, Zhang, Zhang and Liu 2018 (arXiv:1803.06443), Algorithm 1.
"""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.public_copy import PublicCopy, in_main_memory
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

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "DCD-PSGD")
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> DCDState:
        copies = PublicCopy.of(x, in_main_memory(self.compression, x, peer), peer)
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
