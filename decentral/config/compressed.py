"""The `algorithm:` sections of gossip over compressed messages, with the memory that keeps it correct."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from decentral.config.compression import QSGD, Compression
from decentral.config.section import Section

ConsensusStep = Literal["auto"] | Annotated[float, Field(gt=0, le=1)]


class Choco(Section):
    """CHOCO-SGD (Koloskova et al. 2019, 2020): public copies of models, kept up by compressed differences."""

    centralized: ClassVar[bool] = False
    name: Literal["choco"]
    compression: Compression
    """What is sent of the difference between a model and its public copy; any contractive compressor."""
    consensus_step: ConsensusStep = "auto"
    """gamma: how far a model goes to what its neighbors' copies say; the less is sent, the smaller it must be. auto: by
    a search of a second or two, offline, on the run's own graph and compressor."""
    order: Literal["adapt-then-combine", "adapt-while-communicate"] = "adapt-then-combine"
    """Which comes first, the local step or the mixing; adapt-while-communicate hides the wire behind the gradient."""
    every: int = Field(1, ge=1)
    """tau: mix in every tau-th round only, and take local steps in between."""
    start: Literal["model", "zero"] = "model"
    """What the public copies are at first: the model that all nodes begin with, or zeros, as in the second paper."""


class LEAD(Section):
    """LEAD (Liu et al. 2021): primal-dual, exact with unequal data, over unbiased compression such as 4 bits a number.

    It takes the learning rate and the weight decay of the experiment's `optimizer:` section.
    """

    centralized: ClassVar[bool] = False
    name: Literal["lead"]
    compression: Compression = QSGD(name="qsgd", bits=4, norm="inf", block=512)
    """What is sent of the difference between a model and its public copy; any unbiased compressor."""
    consensus_step: float = Field(1.0, gt=0, le=1)
    """gamma: how far the correction goes to what neighbors' copies say; with 2 bits a number take 0.2."""
    copy_step: float = Field(0.5, gt=0, le=1)
    """alpha: how far a public copy goes to what was sent; with 2 bits a number take 0.1."""


class BEER(Section):
    """BEER (Zhao et al. 2022): gradient tracking over compressed differences, of models and of tracked gradients."""

    centralized: ClassVar[bool] = False
    name: Literal["beer"]
    compression: Compression
    """What is sent of each of the two differences in a round; any contractive compressor."""
    consensus_step: ConsensusStep = "auto"
    """gamma: how far mixing goes to what neighbors' copies say; the less is sent, the smaller it must be. auto: by a
    search, as in choco."""


class MoTEF(Section):
    """MoTEF (Islamov et al. 2024): BEER that tracks momenta, for noisy gradients."""

    centralized: ClassVar[bool] = False
    name: Literal["motef"]
    compression: Compression
    """What is sent of each of the two differences in a round; any contractive compressor."""
    consensus_step: ConsensusStep = "auto"
    """gamma: how far mixing goes to what neighbors' copies say; the less is sent, the smaller it must be. auto: by a
    search, as in choco."""
    momentum_step: float = Field(0.1, gt=0, le=1)
    """lambda: how far a momentum goes to the new gradient; 1 is BEER."""


class DeepSqueeze(Section):
    """DeepSqueeze (Tang et al. 2019): compressed models, with what was left out of them kept and sent later."""

    centralized: ClassVar[bool] = False
    name: Literal["deepsqueeze"]
    compression: Compression
    """What is sent of a model and what was left out before; any contractive compressor."""
    consensus_step: float = Field(gt=0, le=1)
    """gamma: how far a model goes to what neighbors sent; the less is sent, the smaller it must be."""


class DCD(Section):
    """DCD-PSGD (Tang et al. 2018): compressed differences without error feedback: to be compared with.

    It diverges where CHOCO does not, with few bits or few numbers.
    """

    centralized: ClassVar[bool] = False
    name: Literal["dcd"]
    compression: Compression
    """What a round changes of a model, as the model itself is changed by it."""


class ECD(Section):
    """ECD-PSGD (Tang et al. 2018): compressed extrapolations, averaged: to be compared with.

    Its error does not tend to 0, and is as large as the model with few bits.
    """

    centralized: ClassVar[bool] = False
    name: Literal["ecd"]
    compression: Compression
    """What is sent of an extrapolation of the model."""


class PowerGossip(Section):
    """PowerGossip (Vogels et al. 2020): low-rank parts of what neighbors differ by, found by power iteration."""

    centralized: ClassVar[bool] = False
    name: Literal["power-gossip"]
    rank: int = Field(1, ge=1, le=1024)
    """r: columns of the two factors of each matrix."""
    iterations: int = Field(1, ge=1, le=64)
    """Of power iteration in a round, each a message of one factor; on a graph that changes, an even number."""
    diffusion: float = Field(1.0, gt=0, le=2)
    """s: what the mixing weights are multiplied by; leave it at 1 where `topology.scaling` is set."""
