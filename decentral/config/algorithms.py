"""The sections `optimizer:` and `algorithm:`: the local optimizer of every node, and the method over the graph."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from decentral.config.asynchronous import ADPSGD, AsyncGradientPush, DelayedDSGD, Swift
from decentral.config.compressed import BEER, DCD, ECD, LEAD, Choco, DeepSqueeze, MoTEF, PowerGossip
from decentral.config.compressed_central import DIANA, DQSGD, ECSGDDIANA, EF14, EF21, EF21SGDM, EControl
from decentral.config.compression import Compression, NoCompression
from decentral.config.control import ControlPhase
from decentral.config.corrections import (
    D2,
    DecentLaM,
    ExactDiffusion,
    GlobalUpdateTracking,
    GradientTracking,
    MomentumTracking,
    QuasiGlobalAdam,
    QuasiGlobalMomentum,
    SlowMo,
)
from decentral.config.hub import DCASGD, AsyncSGD, FedAsync, FedBuff, FedFix, Ringmaster
from decentral.config.low_communication import DiLoCo, EpidemicLearning, FedAvg, GASLoC, NoLoCo, SparseLoCo, Sparta
from decentral.config.rates import Constant, LearningRate
from decentral.config.section import OWN, Named, OpenSection, OwnCode, Section, tag
from decentral.config.sums import RelaySGD, StochasticGradientPush
from decentral.config.tokens import SASRRW, RandomWalkSGD, TokenExchange, TokenGossip, Walkman


class Optimizer(OpenSection):
    """The local optimizer of every node: any torch.optim class by import path; further keys are its options."""

    name: str = Field("torch.optim.SGD", pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")
    """Import path of a torch.optim.Optimizer, such as torch.optim.AdamW."""
    lr: float = Field(0.1, gt=0)
    """Learning rate."""
    schedule: LearningRate = Constant()
    """How the learning rate changes over the rounds: constant, step, cosine or linear, each after a warm-up."""


class DSGD(Section):
    """Decentralized (gossip) SGD, Lian et al. 2017, in one of its three orders."""

    centralized: ClassVar[bool] = False
    name: Literal["dsgd"]
    order: Literal["adapt-then-combine", "combine-then-adapt", "adapt-while-communicate"] = "adapt-then-combine"
    """Which comes first, the local step or the mixing; adapt-while-communicate hides the wire behind the gradient."""
    every: int = Field(1, ge=1)
    """tau: mix in every tau-th round only, and take local steps in between (PA-SGD)."""
    compression: Compression = NoCompression(name="none")
    """What neighbors are sent of a model: all of it, or its values rounded to 16 bits (bf16, fp16), half the bytes."""


class Hierarchical(Section):
    """Groups average inside by all-reduce and gossip between each other; `topology` is the graph of the groups."""

    centralized: ClassVar[bool] = False
    name: Literal["hierarchical"]
    group: int = Field(ge=1)
    """Nodes of each group, such as the GPUs of a host; it must divide `nodes`."""
    between: Literal["leaders", "ranks", "slices"] = "leaders"
    """Who exchanges between groups: leaders; every rank with those of its place; or every rank its slice of the model.

    leaders and slices send the model once per group and neighbor, ranks once per rank.
    """
    order: Literal["adapt-then-combine", "combine-then-adapt", "adapt-while-communicate"] = "adapt-then-combine"
    """Which comes first, the local step or the mixing between groups, as in dsgd."""
    every: int = Field(1, ge=1)
    """tau: groups mix in every tau-th round only; inside, every round averages gradients."""


class AllReduceSGD(Section):
    """Centralized baseline: synchronous SGD on the mean gradient of all nodes."""

    centralized: ClassVar[bool] = True
    name: Literal["allreduce"]


class DDP(Section):
    """Centralized baseline from outside: torch's own DistributedDataParallel in its own loop. Real processes only."""

    centralized: ClassVar[bool] = True
    name: Literal["ddp"]


Methods = (
    Annotated[DSGD, Tag("dsgd")]
    | Annotated[Hierarchical, Tag("hierarchical")]
    | Annotated[Choco, Tag("choco")]
    | Annotated[LEAD, Tag("lead")]
    | Annotated[BEER, Tag("beer")]
    | Annotated[MoTEF, Tag("motef")]
    | Annotated[DeepSqueeze, Tag("deepsqueeze")]
    | Annotated[DCD, Tag("dcd")]
    | Annotated[ECD, Tag("ecd")]
    | Annotated[PowerGossip, Tag("power-gossip")]
    | Annotated[GradientTracking, Tag("gradient-tracking")]
    | Annotated[D2, Tag("d2")]
    | Annotated[ExactDiffusion, Tag("exact-diffusion")]
    | Annotated[QuasiGlobalMomentum, Tag("qg-dsgdm")]
    | Annotated[QuasiGlobalAdam, Tag("qg-dadam")]
    | Annotated[DecentLaM, Tag("decentlam")]
    | Annotated[SlowMo, Tag("slowmo")]
    | Annotated[MomentumTracking, Tag("momentum-tracking")]
    | Annotated[GlobalUpdateTracking, Tag("gut")]
    | Annotated[StochasticGradientPush, Tag("sgp")]
    | Annotated[RelaySGD, Tag("relay-sgd")]
    | Annotated[GASLoC, Tag("gasloc")]
    | Annotated[NoLoCo, Tag("noloco")]
    | Annotated[SparseLoCo, Tag("sparseloco")]
    | Annotated[Sparta, Tag("sparta")]
    | Annotated[EpidemicLearning, Tag("epidemic")]
    | Annotated[DiLoCo, Tag("diloco")]
    | Annotated[FedAvg, Tag("fedavg")]
    | Annotated[RandomWalkSGD, Tag("mcgd")]
    | Annotated[SASRRW, Tag("sa-srrw")]
    | Annotated[Walkman, Tag("walkman")]
    | Annotated[TokenGossip, Tag("token-gossip")]
    | Annotated[TokenExchange, Tag("token-exchange")]
    | Annotated[DelayedDSGD, Tag("delayed-dsgd")]
    | Annotated[ADPSGD, Tag("ad-psgd")]
    | Annotated[Swift, Tag("swift")]
    | Annotated[AsyncGradientPush, Tag("async-gradient-push")]
    | Annotated[AsyncSGD, Tag("async-sgd")]
    | Annotated[Ringmaster, Tag("ringmaster")]
    | Annotated[DCASGD, Tag("dc-asgd")]
    | Annotated[FedAsync, Tag("fedasync")]
    | Annotated[FedBuff, Tag("fedbuff")]
    | Annotated[FedFix, Tag("fedfix")]
    | Annotated[AllReduceSGD, Tag("allreduce")]
    | Annotated[EF14, Tag("ef14")]
    | Annotated[EF21, Tag("ef21")]
    | Annotated[EF21SGDM, Tag("ef21-sgdm")]
    | Annotated[EControl, Tag("econtrol")]
    | Annotated[DQSGD, Tag("dqsgd")]
    | Annotated[DIANA, Tag("diana")]
    | Annotated[ECSGDDIANA, Tag("ec-sgd-diana")]
    | Annotated[DDP, Tag("ddp")]
    | Annotated[OwnCode, Tag(OWN)]
)


class ConsensusControl(Section):
    """Consensus control (Kong et al. 2021): a gossip method, and as many gossip steps more as a target asks for.

    After each round the nodes find a bound on their consensus distance from what neighbors differ by, agree on it by
    messages between neighbors, and take the same number of further steps.
    """

    centralized: ClassVar[bool] = False
    name: Literal["consensus-control"]
    of: Annotated[Methods, Discriminator(tag), Named]
    """The method: dsgd, qg-dsgdm, qg-dadam, decentlam, gradient-tracking, momentum-tracking, slowmo or sparta."""
    target: float | None = Field(gt=0)
    """What the consensus distance is kept under after every round; null for no control but in phases."""
    relative: bool = False
    """Whether the target is in units of the norm of gradient steps, lr ||g||, a running mean over nodes and rounds."""
    phases: list[ControlPhase] = Field([])
    """Other targets from some rounds on: `[{start: 150, target: null}]` is control of the first 150 rounds."""
    max_steps: int = Field(100, ge=1)
    """The most gossip steps after one round; where they do not suffice, the bound that is reached is recorded."""


Algorithm = Annotated[
    Methods | Annotated[ConsensusControl, Tag("consensus-control")],
    Discriminator(tag),
    Named,
]
