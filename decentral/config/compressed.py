"""The `algorithm:` sections of gossip over compressed messages, with the memory that keeps it correct."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from decentral.config.compression import Compression
from decentral.config.section import Section


class Choco(Section):
    """CHOCO-SGD (Koloskova et al. 2019, 2020): public copies of models, kept up by compressed differences."""

    centralized: ClassVar[bool] = False
    name: Literal["choco"]
    compression: Compression
    """What is sent of the difference between a model and its public copy; any contractive compressor."""
    consensus_step: Literal["auto"] | Annotated[float, Field(gt=0, le=1)] = "auto"
    """gamma: how far a model goes to what its neighbors' copies say; the less is sent, the smaller it must be. auto: by
    a search of a second or two, offline, on the run's own graph and compressor."""
    order: Literal["adapt-then-combine", "adapt-while-communicate"] = "adapt-then-combine"
    """Which comes first, the local step or the mixing; adapt-while-communicate hides the wire behind the gradient."""
    every: int = Field(1, ge=1)
    """tau: mix in every tau-th round only, and take local steps in between."""
    start: Literal["model", "zero"] = "model"
    """What the public copies are at first: the model that all nodes begin with, or zeros, as in the second paper."""


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
