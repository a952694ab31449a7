"""The mean of what all nodes have compressed, formed at every node: how centralized compressed methods talk.

    gather       every node is sent every message and adds up C(v_1), ..., C(v_n) in ascending order: the same bits at
                 all nodes. A node sends n-1 messages
    all-reduce   where C is linear in a round, C(v_1) + ... + C(v_n) = C(v_1 + ... + v_n): the engine averages the
                 numbers in the messages, and their mean is the message of the mean. A node sends 2 (n-1)/n messages

With a linear C it is as if one node had compressed the mean of all v: what nodes disagree about costs nothing (Stich
2020, arXiv:2009.02388). Random-k and sketches of a shared seed are linear, and so is no compression.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from decentral.compression import Compressor, Key, Named, Space, compressor_of, require_kernels, section_of, warm_up
from decentral.errors import ConfigError, DivergedError
from decentral.peer import Peer
from decentral.seeding import integer_seed

Through = Literal["auto", "gather", "all-reduce"]
"""auto is all-reduce where all that is sent is linear, and else gather."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One compressor of one node in one round."""

    section: Any  # that names the compressor
    compressor: Compressor
    key: Key
    peer: Peer
    by_sum: bool

    @classmethod
    def of(cls, compression: Named, like: Tensor, peer: Peer, through: Through, purpose: str = "") -> "Channel":
        """For vectors like one, `(d,)`.

        Args:
            purpose: of a second channel in the same round, whose draws are then others than the first one's.

        Raises:
            ConfigError: all-reduce with a compressor that is not linear.
        """
        section = section_of(compression)
        compressor = compressor_of(section, Space.of(like, peer.layout))
        if through == "all-reduce" and not compressor.linear:
            raise ConfigError(
                f"found through: all-reduce and {section.name}, which is not linear: the mean of such messages is no "
                "message; take random-k or sketch with a shared seed, or through: gather",
                section.path or None,
            )
        seed = integer_seed(peer.seed, 0, purpose) if purpose else peer.seed
        by_sum = compressor.linear and through != "gather"
        return cls(section, compressor, Key(seed, peer.round, peer.node), peer, by_sum)

    def opened(self, message_on: torch.device) -> tuple[Tensor, Tensor | None]:
        """An empty message, and what the compressor carries from one to the next; what it runs is compiled."""
        if message_on.type == "cuda":
            require_kernels(self.section, self.compressor)
        if message_on.type != "meta":
            warm_up(self.section, self.compressor.space.dtype, device=message_on)
        return self.compressor.message(message_on), self.compressor.memory(self.key)

    def require_contractive(self, method: str) -> None:
        """Raise ConfigError where C(x) may be farther from x than 0 is."""
        if self.compressor.contraction is None:
            raise ConfigError(
                f"found {self._described}, which is not contractive: what {method} keeps back for later would grow "
                "without bound; set unbiased: false, take more bits or smaller blocks, or top-k",
                self._at,
            )

    def require_unbiased(self, method: str) -> float:
        """omega; raises ConfigError where C is biased."""
        if self.compressor.variance is None:
            raise ConfigError(
                f"found {self._described}, which is biased: {method} keeps back nothing of what it leaves out, so that "
                "would be lost; take int8, qsgd, natural, or random-k or sketch with unbiased: true, or a method with "
                "error feedback (ef14, ef21)",
                self._at,
            )
        return self.compressor.variance

    @property
    def _described(self) -> str:
        return f"{self.section.name} of {self.compressor.space.size} numbers"

    @property
    def _at(self) -> tuple[str | int, ...] | None:
        return self.section.path or None

    async def add_mean_(self, target: Tensor, message: Tensor) -> None:
        """`target += (1/n) sum_j C(v_j)` from every node's own message; raises what `told` and `add_` raise."""
        (messages,) = await told((self, message))
        self.add_(target, messages)

    def add_(self, target: Tensor, messages: Mapping[int, Tensor], share: float = 1.0) -> None:
        """`target += share (1/n) sum_j C(v_j)`, all nodes to the same bits.

        Args:
            target: `(d,)`.
            messages: that `told` returned.

        Raises:
            MalformedMessageError: a node sent what is no such message.
        """
        self.compressor.add(target, dict.fromkeys(messages, share / len(messages)), messages, self.key)

    async def _mean_of(self, message: Tensor) -> Tensor:
        """The message of the mean, in the memory of this node's own."""
        numbers = self.compressor.numbers(message)
        numbers.copy_(await self.peer.all_reduce(numbers))
        if not numbers.is_meta and not bool(torch.isfinite(numbers).all()):
            raise DivergedError(
                f"node {self.peer.node} diverged in round {self.peer.round}: the mean of all messages is not finite; "
                "lower optimizer.lr"
            )
        return message


async def told(*sent: tuple[Channel, Tensor]) -> list[dict[int, Tensor]]:
    """Of each channel whose message is sent, what adds up to all nodes' mean: their messages, by node, or its own.

    All messages travel in one gather, unless all of them may be summed.

    Raises:
        DivergedError: a mean is not finite.
    """
    if all(channel.by_sum for channel, _ in sent):
        return [{channel.peer.node: await channel._mean_of(message)} for channel, message in sent]
    received = await sent[0][0].peer.gather(tuple(message for _, message in sent))
    return [{node: payload[place] for node, payload in received.items()} for place in range(len(sent))]
