"""The `algorithm:` sections of centralized methods whose messages are compressed: all nodes hold the same model.

They bring all nodes together in every round, as all-reduce does, and have no graph.
"""

from typing import ClassVar, Literal

from pydantic import Field

from decentral.config.compression import QSGD, Compression, Int8, RandomK, TopK
from decentral.config.section import Section


class _Compressed(Section):
    centralized: ClassVar[bool] = True
    compression: Compression = TopK(name="top-k")
    """What is sent of a node's vector."""
    through: Literal["auto", "gather", "all-reduce"] = "auto"
    """gather: every node is sent every message, n-1 of them from each. all-reduce: the engine adds messages up, for
    2 (n-1)/n of one from each; for linear compressors alone: random-k and sketch with a shared seed, and none. auto:
    all-reduce where all that is sent is linear, else gather."""


class EF14(_Compressed):
    """EF14, or D-EF-SGD: compressed steps with error feedback. What is left out of a message is sent later."""

    name: Literal["ef14"]


class EF21(_Compressed):
    """EF21 (Richtarik et al. 2021): compressed differences to an estimate of the own gradient, for large batches."""

    name: Literal["ef21"]


class EF21SGDM(_Compressed):
    """EF21-SGDM (Fatkhullin et al. 2023): EF21 on a running average of each node's stochastic gradients."""

    name: Literal["ef21-sgdm"]
    momentum: float = Field(0.9, ge=0, lt=1)
    """beta: how much of itself the average keeps in a round; the paper's eta is 1 - beta."""
    double: bool = False
    """Whether the average is averaged once more (EF21-SGD2M)."""


class EControl(_Compressed):
    """EControl (Gao et al. 2024): EF21 with an error that is fed back too, as far as `control` says."""

    name: Literal["econtrol"]
    control: float | None = Field(None, ge=0, le=1)
    """kappa: the weight of the error in a message; the compressor's delta unless given, and 0 is EF21."""


class DQSGD(_Compressed):
    """D-QSGD (Alistarh et al. 2017): gradients through an unbiased compressor, and nothing kept back."""

    name: Literal["dqsgd"]
    compression: Compression = Int8(name="int8")
    """What is sent of a gradient, by an unbiased compressor."""


class DIANA(_Compressed):
    """DIANA (Mishchenko et al. 2019): quantized differences between gradients and shifts that are learned."""

    name: Literal["diana"]
    compression: Compression = QSGD(name="qsgd", bits=2, norm="inf", block=512)
    """What is sent of the difference, by an unbiased compressor; 2 bits in blocks, as the paper has it."""
    shift_rate: float | None = Field(None, gt=0, le=1)
    """alpha: how much of what was sent a shift takes on; 1 / (1 + omega) unless given, the most that theory allows."""


class ECSGDDIANA(_Compressed):
    """EC-SGD-DIANA (Gorbunov et al. 2020): EF14 on gradients minus shifts that are learned by a second compressor."""

    name: Literal["ec-sgd-diana"]
    shift_compression: Compression = RandomK(name="random-k", unbiased=True)
    """What is sent of the difference between gradient and shift, by an unbiased compressor."""
    shift_rate: float | None = Field(None, gt=0, le=1)
    """alpha: how much of that a shift takes on; 1 / (1 + omega) unless given, the most that theory allows."""
