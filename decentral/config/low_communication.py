"""The `algorithm:` sections of methods that send little: after many local steps, or a small part of a model."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from decentral.config.compression import Compression
from decentral.config.section import Section


class FedAvg(Section):
    """Centralized baseline: local SGD, FedAvg with all nodes: local steps, and the mean of all models at times."""

    centralized: ClassVar[bool] = True
    name: Literal["fedavg"]
    every: int = Field(10, ge=1)
    """tau: rounds between averages, which are an all-reduce of the models."""


class DiLoCo(Section):
    """Centralized baseline: DiLoCo (Douillard et al. 2023): many local steps, then Nesterov along their mean."""

    centralized: ClassVar[bool] = True
    name: Literal["diloco"]
    every: int = Field(50, ge=1)
    """H: rounds between outer steps, each an all-reduce of the models."""
    outer_lr: float = Field(0.7, gt=0)
    """gamma: how far the outer step goes; 1 with outer_momentum 0 is plain averaging."""
    outer_momentum: float = Field(0.9, ge=0, lt=1)
    """beta: Nesterov momentum of the outer steps."""


class GASLoC(Section):
    """GASLoC (Cagnasso et al. 2026): many local steps, then gossip with momentum; DiLoCo without a collective."""

    centralized: ClassVar[bool] = False
    name: Literal["gasloc"]
    every: int = Field(50, ge=1)
    """H: rounds between outer steps, each an exchange of the models."""
    outer_lr: float = Field(0.7, gt=0)
    """How much of what the local steps have changed an outer step takes."""
    outer_momentum: float = Field(0.9, ge=0, lt=1)
    """gamma: momentum of the outer steps; 0.6 at most where links change from round to round, as in random pairs."""
    momentum_of: Literal["own", "mixed"] = "own"
    """own: each node's momentum is of its own model, as in the paper; on the complete graph the mean of all is DiLoCo.
    mixed: of what is mixed; on the complete graph every node is DiLoCo."""


class NoLoCo(Section):
    """NoLoCo (Kolehmainen et al. 2025): many local steps, then momentum with a random other node.

    Its pairs are `topology: {name: complete, schedule: random-matchings}`; it runs on any other graph too.
    """

    centralized: ClassVar[bool] = False
    name: Literal["noloco"]
    every: int = Field(50, ge=1)
    """H: rounds between outer steps, each an exchange of one vector."""
    outer_lr: float = Field(0.7, gt=0)
    """beta: how much of the pair's mean change an outer step takes."""
    outer_momentum: float = Field(0.5, ge=0, lt=1)
    """alpha: momentum of the outer steps."""
    pull: float | None = Field(None, gt=0)
    """gamma: how far a node goes to its pair's mean model; unless given, as outer_lr."""


class SparseLoCo(Section):
    """SparseLoCo (Sarfi et al. 2025) over gossip: many local steps, then compressed drifts with error feedback."""

    centralized: ClassVar[bool] = False
    name: Literal["sparseloco"]
    compression: Compression
    """What is sent of the drifts, and of what keeps the nodes together; any contractive compressor. The paper's is
    nearly `{name: block-top-k, block: 4096, keep: 64, values: {name: qsgd, bits: 2, norm: inf, unbiased: false}}`."""
    every: int = Field(50, ge=1)
    """H: rounds between outer steps, each an exchange of two compressed vectors."""
    outer_lr: float = Field(1.0, gt=0)
    """alpha: how far the outer step goes."""
    decay: float = Field(0.95, ge=0, le=1)
    """beta: how much of what was not sent is kept for the next outer step."""
    consensus_step: Literal["auto"] | Annotated[float, Field(gt=0, le=1)] = "auto"
    """gamma: how far a model goes to what its neighbors' copies say. auto: by a search, as in choco."""


class Sparta(Section):
    """SPARTA (Beton et al. 2025) over gossip: in every round nodes mix a small random part of their models."""

    centralized: ClassVar[bool] = False
    name: Literal["sparta"]
    fraction: float = Field(0.005, gt=0, le=1)
    """p: which part of the model is mixed in a round, by a draw that all nodes share, so that no index is sent."""
    order: Literal["adapt-then-combine", "adapt-while-communicate"] = "adapt-then-combine"
    """Which comes first, the local step or the mixing; adapt-while-communicate hides the wire behind the gradient."""


class EpidemicLearning(Section):
    """Epidemic Learning (de Vos et al. 2023): the plain mean of the models of whoever drew a node in this round.

    Its draws are `topology: epidemic`; with `balanced: false` there, each node draws for itself (EL-Local).
    """

    centralized: ClassVar[bool] = False
    name: Literal["epidemic"]
