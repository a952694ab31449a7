"""What every compressor is: a map C from a vector to a message of known size, and from the message to the vector C(x).

A compressor is made for one space of vectors, and states there how many bytes a message has and how far C(x) is from x:

    contractive with delta   E |C(x) - x|^2 <= (1 - delta) |x|^2
    unbiased with omega      E C(x) = x,  E |C(x) - x|^2 <= omega |x|^2

for numbers that neither overflow nor become subnormal. Three encodings cover what error feedback asks for, each in as
few passes over memory as there can be:

    encode             send C(x)                                        plain compression
    encode_difference  send q = C(x - h),  h <- h + step q              CHOCO's xhat, EF21's g, LEAD's H (step alpha)
    encode_residual    send q = C(v),      v <- v - q                   EF14's and DeepSqueeze's e

and `add` is for the receivers' sums, s <- s + sum_j w_ij q_j. Whoever decodes a message, sender or receiver, gets the
same bits, sign of zero included: h at its own node and its copies at the neighbors stay equal forever.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from decentral.compression.key import Key
from decentral.compression.on_gpu import Passes, flat_on_gpu, is_on_gpu
from decentral.errors import DivergedError, LostNeighborError
from decentral.fused import is_fusible
from decentral.peer import Layout

Array = np.ndarray[Any, Any]


class MalformedMessageError(LostNeighborError):
    """What arrived is not a message of this compressor in this round; nothing was decoded of it."""


@dataclass(frozen=True)
class Space:
    """The vectors that a compressor is made for."""

    size: int  # d >= 1
    dtype: torch.dtype
    layout: Layout = ()  # where the parameter tensors lie; one tensor (d,) unless given

    @classmethod
    def of(cls, x: Tensor, layout: Layout = ()) -> "Space":
        """The space of `x: (d,)`."""
        return cls(x.numel(), x.dtype, layout)

    @property
    def number_bytes(self) -> int:
        return self.dtype.itemsize

    @property
    def number(self) -> Any:
        """The NumPy type of one number."""
        return np.float64 if self.dtype == torch.float64 else np.float32

    @property
    def unsigned(self) -> Any:
        """The unsigned integers of the same width."""
        return np.uint64 if self.dtype == torch.float64 else np.uint32


class Source(NamedTuple):
    """What is encoded, u = x - reference, and what takes up what was sent of it, `target += step * C(u)`.

    A reference or a target that there is not has no numbers. A target may be x or the reference.
    """

    x: Array
    reference: Array
    target: Array
    step: Any


class Sink(NamedTuple):
    """Where a message is decoded to: `target += weight * C(x)`, or `target <- C(x)` where it is not `adding`."""

    target: Array
    weight: Any
    adding: bool


@dataclass(frozen=True)
class Compressor(ABC):
    """A compressor of the flat vectors of one space. It has no state: what it carries over is in its `memory`."""

    space: Space

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Of every message."""

    @property
    def contraction(self) -> float | None:
        """delta, in (0, 1]; None where C is not contractive."""
        return None

    @property
    def variance(self) -> float | None:
        """omega, where C is unbiased; None where it is not."""
        return None

    @property
    def linear(self) -> bool:
        """Whether C(x + y) = C(x) + C(y) in one round, so that means may be taken of messages."""
        return False

    @property
    def summed_bytes(self) -> int:
        """Of a linear compressor's message, from its start, those that are numbers to be added up."""
        return self.bytes

    def numbers(self, message: Tensor) -> Tensor:
        """A linear compressor's message as a vector, a view: with the mean of all nodes' in its place, it is the
        message of the mean."""
        return message[: self.summed_bytes].view(self.space.dtype)

    def message(self, device: torch.device | str = "cpu") -> Tensor:
        """An empty message `(bytes,)` of uint8, to be filled by one of the encodings."""
        return torch.zeros(self.bytes, dtype=torch.uint8, device=device)

    def memory(self, key: Key) -> Tensor | None:  # noqa: ARG002
        """What the sender carries from one encoding to the next, at its start; None for all but low rank."""
        return None

    @property
    def has_kernels(self) -> bool:
        """Whether it can be run on a GPU."""
        return False

    def kernels(self) -> Passes:
        """What it runs there; imports triton."""
        raise ValueError(f"{type(self).__name__} has no kernels, and was given vectors on a GPU")

    def encode(self, x: Tensor, out: Tensor, key: Key, memory: Tensor | None = None) -> Tensor:
        """Write C(x) of `x: (d,)` into `out`, made by `message`; returns it.

        Raises:
            DivergedError: x has numbers that are not finite, or that the message cannot hold.
        """
        return self._encoded(x, None, None, 1.0, out, key, memory)

    def encode_difference(
        self, x: Tensor, reference: Tensor, out: Tensor, key: Key, *, step: float = 1.0, memory: Tensor | None = None
    ) -> Tensor:
        """Write q = C(x - reference) into `out`, and `reference += step * q`; returns `out`.

        Args:
            x: `(d,)`.
            reference: `(d,)`, other memory than x.
            out: the message.

        Raises:
            DivergedError: as in `encode`; the reference is of no use then.
        """
        return self._encoded(x, reference, reference, step, out, key, memory)

    def encode_residual(self, x: Tensor, out: Tensor, key: Key, memory: Tensor | None = None) -> Tensor:
        """Write q = C(x) of `x: (d,)` into `out`, and leave in x what was not sent, `x <- x - q`; returns `out`.

        Raises:
            DivergedError: as in `encode`; x is of no use then.
        """
        return self._encoded(x, None, x, -1.0, out, key, memory)

    def decode(self, message: Tensor, out: Tensor, key: Key) -> Tensor:
        """`out <- C(x)`, `(d,)`, from a message of the key's round; returns `out`.

        Raises:
            MalformedMessageError: it is not such a message; `out` is as it was.
        """
        if is_on_gpu(out):
            flat = flat_on_gpu(out, self.space.size, self.space.dtype)
            self.kernels().decode(self.read(message.to(out.device), key), flat, 1.0, False, key)
            torch.autograd.graph.increment_version(out)
        elif not out.is_meta:
            numbers, parts = self._numbers(out), self.read(message, key)
            self._decode(parts, Sink(numbers, self.space.number(1), False), key)
            torch.autograd.graph.increment_version(out)
        return out

    def add(self, x: Tensor, weights: Mapping[int, float], messages: Mapping[int, Tensor], key: Key) -> None:
        """`x <- x + sum_j weights[j] C(x_j)`, in ascending j, from messages of the key's round.

        Each product and each sum is rounded to the dtype of x. With weight 1 it is bit for bit what `encode_difference`
        does to its reference.

        Args:
            x: `(d,)`, of the dtype of the vectors; or float64, for sums over all rounds.
            weights: of the messages, by node.
            messages: by node.
            key: of one of them; its node is who is told of, should one be wrong.

        Raises:
            MalformedMessageError: one of them is not such a message; none was added.
        """
        if x.is_meta:
            return
        ordered, on_gpu = sorted(weights.items()), is_on_gpu(x)
        if on_gpu:
            flat = flat_on_gpu(x, self.space.size, self.space.dtype, torch.float64)
        else:
            target = self._numbers(x, torch.float64)
        parts = [self.read(messages[j].to(x.device), key, j) for j, _ in ordered]
        for (_, weight), part in zip(ordered, parts, strict=True):
            if on_gpu:
                self.kernels().decode(part, flat, weight, True, key)
            else:
                self._decode(part, Sink(target, target.dtype.type(weight), True), key)
        torch.autograd.graph.increment_version(x)

    @abstractmethod
    def _encode(self, source: Source, out: Array, key: Key, memory: Tensor | None) -> int:
        """Encode, and settle the target; returns how many numbers there are that cannot be sent."""

    @abstractmethod
    def _checked(self, message: Array, key: Key) -> Any:
        """The parts of a message that has the right length, found to be what `_encode` writes.

        Raises:
            MalformedMessageError: it is not.
        """

    @abstractmethod
    def _decode(self, parts: Any, sink: Sink, key: Key) -> None:
        """Decode what `_checked` returned."""

    def _encoded(
        self,
        x: Tensor,
        reference: Tensor | None,
        target: Tensor | None,
        step: float,
        out: Tensor,
        key: Key,
        memory: Tensor | None,
    ) -> Tensor:
        if x.is_meta:  # a dry run has no numbers
            return out
        if is_on_gpu(x):
            unfit = self._encoded_on_gpu(x, reference, target, step, out, key)
        else:
            absent: Array = np.empty(0, self.space.number)
            h, taking = (absent if vector is None else self._numbers(vector) for vector in (reference, target))
            source = Source(self._numbers(x), h, taking, self.space.number(step))
            content = _bytes(out, self.bytes)
            unfit = self._encode(source, content, key, memory)
            if content.ctypes.data != out.data_ptr():
                out.copy_(torch.from_numpy(content))
        if unfit:
            raise DivergedError(
                f"node {key.node} diverged in round {key.round}: {unfit} of the {self.space.size} numbers that it was "
                f"to send are not finite or too large to be sent; lower optimizer.lr or the consensus step"
            )
        for written in (out, target, memory):
            if written is not None:
                torch.autograd.graph.increment_version(written)  # kernels write past torch
        return out

    def _encoded_on_gpu(
        self, x: Tensor, reference: Tensor | None, target: Tensor | None, step: float, out: Tensor, key: Key
    ) -> int:
        size, dtype = self.space.size, self.space.dtype
        h, taking = (None if v is None else flat_on_gpu(v, size, dtype) for v in (reference, target))
        content = _fitting(out, self.bytes)
        return self.kernels().encode(flat_on_gpu(x, size, dtype), h, taking, step, content, key)

    def read(self, message: Tensor, key: Key, sender: int | None = None) -> Any:
        """The parts of a message, found to be what a sender writes in the key's round.

        Raises:
            MalformedMessageError: it is not.
        """
        try:
            if is_on_gpu(message):
                return self.kernels().checked(_fitting(message, self.bytes), key)
            return self._checked(_bytes(message, self.bytes), key)
        except MalformedMessageError as error:
            who = "a message" if sender is None else f"what node {sender} sent"
            raise MalformedMessageError(f"node {key.node} cannot read {who} in round {key.round}: {error}") from None

    def _numbers(self, vector: Tensor, wider: torch.dtype | None = None) -> Array:
        flat, fitting = vector.detach(), (self.space.dtype, wider)
        if not is_fusible([flat]) or flat.dtype not in fitting or flat.numel() != self.space.size:
            raise ValueError(
                f"found {flat.numel()} numbers of {flat.dtype} on {flat.device}; {type(self).__name__} was made for "
                f"contiguous vectors of {self.space.size} numbers of {self.space.dtype} in main memory"
            )
        return flat.numpy().reshape(-1)


def _fitting(message: Tensor, expected: int) -> Tensor:
    if message.dtype != torch.uint8 or message.dim() != 1 or message.numel() != expected:
        raise MalformedMessageError(
            f"found {tuple(message.shape)} of {message.dtype}; required: a message of {expected} bytes"
        )
    return message.detach()


def _bytes(message: Tensor, expected: int) -> Array:
    fitting = _fitting(message, expected)
    # The passes read whole words: a message that lies elsewhere is moved.
    aligned = fitting if fitting.is_contiguous() and fitting.data_ptr() % 8 == 0 else fitting.clone()
    return aligned.numpy()
