"""The `compression:` section: how vectors are compressed before they are sent. A plain string is its name.

What each does, and what it promises, stands in the file of its name in `decentral.compression`.
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from decentral.config.section import Named, Section, tag


class NoCompression(Section):
    """All numbers as they are."""

    name: Literal["none"]


class BF16(Section):
    """Every number rounded to bfloat16: two bytes, relative error up to 2^-8."""

    name: Literal["bf16"]


class FP16(Section):
    """Every number rounded to float16: two bytes, relative error up to 2^-11; beyond 65504 refused."""

    name: Literal["fp16"]


class Natural(Section):
    """Every number to a power of two beside it, at random: 9 bits of float32, unbiased."""

    name: Literal["natural"]


class Sign(Section):
    """One bit for each number, and a norm."""

    name: Literal["sign"]
    norms: Literal["tensor", "vector"] = "tensor"
    """Whether each parameter tensor has a norm of its own, as in the literature, or all together have one."""


class QSGD(Section):
    """Integers of a few bits in units of a norm, rounded at random."""

    name: Literal["qsgd"]
    bits: Literal[2, 4, 8] = 4
    """Of each number, its sign among them."""
    norm: Literal["l2", "inf"] = "l2"
    """The 2-norm, as QSGD has it, or the largest magnitude, as LEAD has it (with blocks of 512)."""
    block: int = Field(0, ge=0, le=2**31 - 4, multiple_of=4)
    """Numbers that have a norm of their own; 0 for the whole vector."""
    unbiased: bool = True
    """false divides by 1 + omega, which makes it contractive: what CHOCO needs where omega is 1 or more."""


class Int8(Section):
    """Bytes in units of each block's largest magnitude."""

    name: Literal["int8"]
    block: int = Field(512, ge=4, le=2**31 - 4, multiple_of=4)
    """Numbers that have a scale of their own."""
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    """At random, which is unbiased, or to the nearest."""


Values = Annotated[
    Annotated[NoCompression, Tag("none")]
    | Annotated[BF16, Tag("bf16")]
    | Annotated[FP16, Tag("fp16")]
    | Annotated[Int8, Tag("int8")]
    | Annotated[QSGD, Tag("qsgd")]
    | Annotated[Natural, Tag("natural")]
    | Annotated[Sign, Tag("sign")],
    Discriminator(tag),
    Named,
]


class _Sparse(Section):
    values: Values = NoCompression(name="none")
    """How the numbers that are sent are compressed in turn."""


class _Counted(_Sparse):
    fraction: float | None = Field(None, gt=0, le=1)
    """k as a share of all numbers, at least one of them; 0.01 unless given."""
    k: int | None = Field(None, ge=1)
    """Or k itself; all, where there are fewer."""


class TopK(_Counted):
    """The k numbers of largest magnitude, exactly, with their indices in about 9 bits each."""

    name: Literal["top-k"]


class Threshold(_Counted):
    """The k numbers of largest magnitude, magnitudes compared to 7 bits."""

    name: Literal["threshold"]


class BlockTopK(_Sparse):
    """The largest numbers of each block."""

    name: Literal["block-top-k"]
    block: int = Field(128, ge=1, le=65_536)
    """Numbers in a block; up to 256, an index takes one byte, else two."""
    keep: int = Field(1, ge=1, le=65_536)
    """How many of each block are sent, `block` at most."""


class RandomK(_Counted):
    """k numbers at random."""

    name: Literal["random-k"]
    shared: bool = True
    """Whether all nodes send the same numbers in a round, which makes it linear."""
    unbiased: bool = False
    """Whether what is sent is multiplied by d / k; else it is contractive."""


class Sketch(Section):
    """Signed sums of the numbers, by signs that all nodes share: linear."""

    name: Literal["sketch"]
    fraction: float = Field(0.01, gt=0, le=1)
    """Sums as a share of the numbers, at least one."""
    unbiased: bool = False
    """Whether what is decoded is unbiased; else it is contractive."""


class LowRank(Section):
    """Each matrix of the model as a product of two thin ones, from one step of power iteration (PowerSGD's)."""

    name: Literal["low-rank"]
    rank: int = Field(1, ge=1, le=1024)
    """Columns of each factor."""


Compression = Annotated[
    Annotated[NoCompression, Tag("none")]
    | Annotated[BF16, Tag("bf16")]
    | Annotated[FP16, Tag("fp16")]
    | Annotated[Int8, Tag("int8")]
    | Annotated[QSGD, Tag("qsgd")]
    | Annotated[Natural, Tag("natural")]
    | Annotated[Sign, Tag("sign")]
    | Annotated[TopK, Tag("top-k")]
    | Annotated[Threshold, Tag("threshold")]
    | Annotated[BlockTopK, Tag("block-top-k")]
    | Annotated[RandomK, Tag("random-k")]
    | Annotated[Sketch, Tag("sketch")]
    | Annotated[LowRank, Tag("low-rank")],
    Discriminator(tag),
    Named,
]
