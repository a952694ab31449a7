"""What every compressor is: a map C from a vector to a message of known size, and back to the vector C(x)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor


class Compressor(ABC):
    """A compressor of flat vectors; what is sent and the sender's own copy of it decode to the same bits."""

    @abstractmethod
    def message(self, x: Tensor) -> Tensor:
        """An empty message for vectors like `x: (d,)`, to be filled by `encode`."""

    @abstractmethod
    def encode(self, x: Tensor, out: Tensor) -> Tensor:
        """Write C(x) of `x: (d,)` into `out`, made by `message`; returns it."""

    @abstractmethod
    def add_(self, x: Tensor, weights: Mapping[int, float], messages: Mapping[int, Tensor]) -> None:
        """`x <- x + sum_j weights[j] C(x_j)`, in ascending j, from the nodes' messages."""
