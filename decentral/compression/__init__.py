"""What is said: compressors, by the names that an experiment gives them. Adding one is adding a line here."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from pydantic import TypeAdapter

from decentral.compression.casting import BFloat16, Float16
from decentral.compression.compressor import Compressor, MalformedMessageError, Space
from decentral.compression.exact import Exact
from decentral.compression.key import Key
from decentral.compression.low_rank import LowRank
from decentral.compression.natural import Natural
from decentral.compression.quantized import Quantized
from decentral.compression.random_k import Random
from decentral.compression.selection import SAMPLE
from decentral.compression.sign import Sign
from decentral.compression.sketch import Sketch
from decentral.compression.sparse import Choice, Sparse
from decentral.compression.top_k import Largest, LargestOfBlocks
from decentral.config import compression as config
from decentral.config.section import Section
from decentral.errors import ConfigError
from decentral.fused import DTYPES

__all__ = [
    "COMPRESSORS",
    "Compressor",
    "Key",
    "MalformedMessageError",
    "Named",
    "Space",
    "compressor_of",
    "require_kernels",
    "section_of",
    "warm_up",
    "with_kernels",
]

Named = str | Mapping[str, Any] | Section
"""A compressor's name, or a mapping with `name` and options, or the section that they make."""

_SECTIONS: TypeAdapter[Any] = TypeAdapter(config.Compression)


def section_of(compression: Named) -> Any:
    """The section that a name, or a mapping, stands for.

    Raises:
        ValidationError: an unknown name or option, or one out of bounds.
    """
    return compression if isinstance(compression, Section) else _SECTIONS.validate_python(compression)


def compressor_of(compression: Named, space: Space) -> Compressor:
    """The compressor that is named, for the vectors of one space.

    Raises:
        ConfigError: options that exclude each other.
    """
    section = section_of(compression)
    return COMPRESSORS[section.name](space, section)


def with_kernels() -> list[str]:
    """The compressors that can be run on a GPU, with their default options."""
    space = Space(1, torch.float32)
    return [name for name in COMPRESSORS if compressor_of(name, space).has_kernels]


def require_kernels(compression: Named, compressor: Compressor) -> None:
    """Refuse a compressor that only main memory has passes for, before a vector on a GPU comes to it.

    Raises:
        ConfigError: it has no kernels, or was not made for float32.
        MissingEnvironmentError: triton is not installed.
    """
    section = section_of(compression)
    if not compressor.has_kernels:
        raise ConfigError(
            f"found a model on a GPU and {section.name} with options that no GPU kernel is written for; required: one "
            f"of {', '.join(with_kernels())} with its default options, or device: cpu",
            section.path or None,
        )
    if compressor.space.dtype != torch.float32:
        raise ConfigError(
            f"found a model of {compressor.space.dtype} on a GPU; compression has kernels for torch.float32 alone: "
            "take that, or device: cpu",
            section.path or None,
        )
    compressor.kernels()


@cache
def warm_up(
    section: Any, dtype: torch.dtype, sums: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> None:
    """Compile what a section's compressor runs, or load it from disk, before a clock runs.

    Args:
        sums: the dtype of what messages are added to; that of the vectors unless given.
        device: where the vectors are.
    """
    if dtype not in (DTYPES if torch.device(device).type == "cpu" else (torch.float32,)):
        return
    x = torch.linspace(-1, 1, 3 * SAMPLE, dtype=dtype, device=device)  # so many that a selection takes a sample
    compressor, key = compressor_of(section, Space.of(x)), Key(0, 0, 0)
    message = compressor.encode_difference(x, torch.zeros_like(x), compressor.message(device), key)
    compressor.add(compressor.decode(message, x, key).to(sums or dtype), {0: 1.0}, {0: message}, key)


def _sparse(space: Space, choice: Choice, values: Section, unbiased: bool = False) -> Sparse:
    return Sparse(space, choice, compressor_of(values, Space(choice.count, space.dtype)), unbiased)


def _count(space: Space, section: config.TopK | config.Threshold | config.RandomK) -> int:
    if section.k is not None and section.fraction is not None:
        raise ConfigError(f"found both fraction {section.fraction:g} and k {section.k}; give one of them", section.path)
    if section.k is not None:
        return min(section.k, space.size)
    return max(1, int(space.size * (0.01 if section.fraction is None else section.fraction)))


def _blocks(space: Space, section: config.BlockTopK) -> Choice:
    if section.keep > section.block:
        raise ConfigError(
            f"found keep {section.keep} of a block of {section.block}; required: {section.block} at most",
            (*section.path, "keep"),
        )
    return LargestOfBlocks(space, section.block, section.keep)


def _random_k(space: Space, section: config.RandomK) -> Compressor:
    choice = Random(space, _count(space, section), section.shared)
    return _sparse(space, choice, section.values, section.unbiased)


def _int8(space: Space, section: config.Int8) -> Compressor:
    return Quantized(space, 8, "inf", section.block, stochastic=section.rounding == "stochastic")


def _sketch(space: Space, section: config.Sketch) -> Compressor:
    return Sketch(space, max(1, int(space.size * section.fraction)), section.unbiased)


COMPRESSORS: dict[str, Callable[[Space, Any], Compressor]] = {
    "none": lambda space, _: Exact(space),
    "bf16": lambda space, _: BFloat16(space),
    "fp16": lambda space, _: Float16(space),
    "int8": _int8,
    "qsgd": lambda space, of: Quantized(space, of.bits, of.norm, of.block, of.unbiased),
    "natural": lambda space, _: Natural(space),
    "sign": lambda space, of: Sign(space, of.norms),
    "top-k": lambda space, of: _sparse(space, Largest(space, _count(space, of)), of.values),
    "threshold": lambda space, of: _sparse(space, Largest(space, _count(space, of), coarse=True), of.values),
    "block-top-k": lambda space, of: _sparse(space, _blocks(space, of), of.values),
    "random-k": _random_k,
    "sketch": _sketch,
    "low-rank": lambda space, of: LowRank(space, of.rank),
}
"""Each makes the compressor of a section, by the section's name, for the vectors of a space."""
