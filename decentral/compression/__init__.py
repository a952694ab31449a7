"""What is said: compressors, by the names that an experiment gives them. Adding one is adding a line here.

Each function makes a compressor of one space of vectors from the options of its section in `decentral.config`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from decentral.compression.casting import BFloat16, Float16
from decentral.compression.compressor import Compressor, MalformedMessageError, Space
from decentral.compression.exact import Exact
from decentral.compression.key import Key
from decentral.compression.low_rank import LowRank
from decentral.compression.natural import Natural
from decentral.compression.quantized import Quantized
from decentral.compression.random_k import Random
from decentral.compression.sign import Sign
from decentral.compression.sketch import Sketch
from decentral.compression.sparse import Choice, Sparse
from decentral.compression.top_k import Largest, LargestOfBlocks, count_of

__all__ = ["COMPRESSORS", "Compressor", "Key", "MalformedMessageError", "Space", "compressor_of"]

Named = str | Mapping[str, Any]


def _top_k(space: Space, *, fraction: float = 0.01, k: int | None = None, values: Named = "none") -> Compressor:
    return _sparse(space, Largest(space, count_of(space, fraction, k)), values)


def _threshold(space: Space, *, fraction: float = 0.01, k: int | None = None, values: Named = "none") -> Compressor:
    return _sparse(space, Largest(space, count_of(space, fraction, k), coarse=True), values)


def _block_top_k(space: Space, *, block: int = 128, keep: int = 1, values: Named = "none") -> Compressor:
    return _sparse(space, LargestOfBlocks(space, block, keep), values)


def _random_k(
    space: Space,
    *,
    fraction: float = 0.01,
    k: int | None = None,
    shared: bool = True,
    unbiased: bool = False,
    values: Named = "none",
) -> Compressor:
    return _sparse(space, Random(space, count_of(space, fraction, k), shared), values, unbiased)


def _int8(space: Space, *, block: int = 512, rounding: str = "stochastic") -> Compressor:
    return Quantized(space, bits=8, norm="inf", block=block, stochastic=rounding == "stochastic")


def _sketch(space: Space, *, fraction: float = 0.01, unbiased: bool = False) -> Compressor:
    return Sketch(space, max(1, int(space.size * fraction)), unbiased)


def _sparse(space: Space, choice: Choice, values: Named, unbiased: bool = False) -> Compressor:
    of_values = compressor_of(values, Space(choice.count, space.dtype))
    return Sparse(space, choice, of_values, unbiased)


COMPRESSORS: dict[str, Callable[..., Compressor]] = {
    "none": Exact,
    "bf16": BFloat16,
    "fp16": Float16,
    "top-k": _top_k,
    "threshold": _threshold,
    "block-top-k": _block_top_k,
    "random-k": _random_k,
    "sign": Sign,
    "qsgd": Quantized,
    "int8": _int8,
    "natural": Natural,
    "low-rank": LowRank,
    "sketch": _sketch,
}


def compressor_of(section: Named, space: Space) -> Compressor:
    """The compressor that a section of an experiment names, for the vectors of one space."""
    options = {"name": section} if isinstance(section, str) else dict(section)
    return COMPRESSORS[options.pop("name")](space, **options)
