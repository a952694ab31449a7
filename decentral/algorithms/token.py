"""A token: the model that walks, and all that walks with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from decentral.errors import DecentralError
from decentral.peer import Letter, Payload


@dataclass(slots=True)
class Token:
    """What walks.

    Attributes:
        number: 0..tokens-1.
        visit: how many visits it has made, so the number of the next one.
        generation: 0, and higher for one that took the place of a lost one.
        came_from: the node before this one, or NOWHERE.
        loss: the sum over this round's visits.
        vectors: the model `(d,)`, and what else the method carries, of its shape.
        counts: `(n,)` float64, visits up to a factor; None where the walk has no use for them.
        forked: whether it has in this round; None where tokens do not fork.
    """

    number: int
    visit: int
    generation: int
    came_from: int
    loss: float
    vectors: list[Tensor]
    counts: Tensor | None
    forked: bool | None = None

    @property
    def x(self) -> Tensor:
        """The model `(d,)`."""
        return self.vectors[0]

    def payload(self) -> Payload:
        """All of it, as it travels."""
        carried = self.vectors if self.counts is None else [*self.vectors, self.counts]
        numbers = [self.number, self.visit, self.generation, self.came_from, digest(carried)]
        numbers += [] if self.forked is None else [int(self.forked)]
        return (*carried, torch.tensor(numbers), torch.tensor(self.loss, dtype=torch.float64))

    @classmethod
    def arrived(cls, letter: Letter, node: int, counted: bool) -> "Token":
        """The token in a letter.

        Raises:
            DecentralError: it is not what was sent.
        """
        *tensors, numbers, loss = letter.payload
        number, visit, generation, came_from, sent, *forked = numbers.tolist()
        carried = [tensor.clone() for tensor in tensors]
        if digest(carried) != sent:
            raise DecentralError(
                f"token {number} came damaged from node {letter.sender} to node {node} at visit {visit}: its digest is "
                f"{digest(carried):08x}, and {sent:08x} was sent; check the memory and the network of both hosts"
            )
        counts = carried.pop() if counted else None
        return cls(
            number, visit, generation, came_from, float(loss), carried, counts, bool(*forked) if forked else None
        )

    def fork(self) -> "Token":
        """Another one with the same in it, which has still to get a number."""
        counts = None if self.counts is None else self.counts.clone()
        vectors = [vector.clone() for vector in self.vectors]
        return Token(self.number, self.visit, 0, self.came_from, 0.0, vectors, counts, self.forked)


@dataclass(slots=True)
class Route:
    """How far a token has come, as every node can work out by itself: what is on the token but for its vectors."""

    at: int  # the node that it is at
    token: Token  # without vectors


def digest(tensors: Iterable[Tensor]) -> int:
    """The CRC of some tensors' bytes; 0 in a dry run, which has no numbers."""
    checksum = 0
    for tensor in tensors:
        if tensor.is_meta:
            return 0
        numbers: Any = tensor.detach().contiguous().view(torch.uint8).cpu().numpy()
        checksum = crc32(numbers, checksum)
    return checksum
