"""One experiment is one tree of sections: the only place where YAML keys live.

Every field says what it is, its bound and its default; `decentral explain` and the JSON schema come from here. A plain
string stands for a section's name (`topology: ring` is `topology: {name: ring}`). Sections that end in a user's own
code (topology, optimizer, `module:function` for model and data) keep further keys as options, which are checked against
the signature of what they call.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag

from decentral.compression_config import Compression, NoCompression
from decentral.correction_sections import (
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
from decentral.rates import Constant, LearningRate
from decentral.section import OWN, KeyPath, Named, OpenSection, OwnCode, Section, tag

__all__ = ["OWN", "KeyPath", "Named", "OpenSection", "OwnCode", "Section"]  # of every section, for whoever reads these


class Digits(Section):
    """scikit-learn's bundled 1,797 images of handwritten digits, 8 by 8, ten classes."""

    name: Literal["digits"]
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of the images held out for testing, stratified by class, the same for every seed."""


class MNIST(Section):
    """MNIST from a local folder in its original IDX files, gzipped or not."""

    name: Literal["mnist"]
    root: Path
    """Folder with train-images-idx3-ubyte and its three siblings; relative to the experiment file."""


class CIFAR10(Section):
    """CIFAR-10 from a local folder in its binary version."""

    name: Literal["cifar10"]
    root: Path
    """Folder with data_batch_1.bin ... data_batch_5.bin and test_batch.bin; relative to the experiment file."""


class Quadratics(Section):
    """Heterogeneous least squares with a known optimum: f_i(x) = 1/2 ||A_i x - b_i||^2, split by nature.

    The gradients at the optimum have mean square zeta^2 over the nodes (Vogels et al. 2021's test problem).
    """

    name: Literal["quadratics"]
    dimension: int = Field(10, ge=1, le=100_000)
    """d, the number of unknowns, and of rows per node."""
    mu: float = Field(0.5, gt=0)
    """Smallest eigenvalue of every A_i^T A_i."""
    smoothness: float = Field(1.0, gt=0)
    """L, the largest eigenvalue of every A_i^T A_i."""
    zeta2: float = Field(0.1, ge=0)
    """Heterogeneity: the mean over nodes of ||grad f_i(x*)||^2."""


Data = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[MNIST, Tag("mnist")]
    | Annotated[CIFAR10, Tag("cifar10")]
    | Annotated[Quadratics, Tag("quadratics")]
    | Annotated[OwnCode, Tag(OWN)],
    Discriminator(tag),
    Named,
]


class IID(Section):
    """A random split into parts of equal size (to one sample)."""

    name: Literal["iid"]


class Dirichlet(Section):
    """Each class is spread over the nodes by its own draw from Dirichlet(alpha)."""

    name: Literal["dirichlet"]
    alpha: float = Field(1.0, gt=0, le=1e6)
    """Small alpha: few classes on each node. Large alpha: nearly iid."""
    min_samples: int = Field(2, ge=1)
    """Draw again until every node holds at least this many samples."""


class Shards(Section):
    """Sorted by label, cut into equal shards, and dealt out (McMahan et al. 2017)."""

    name: Literal["shards"]
    per_node: int = Field(2, ge=1)
    """Shards that each node receives: about the number of classes it sees."""


Partition = Annotated[
    Annotated[IID, Tag("iid")] | Annotated[Dirichlet, Tag("dirichlet")] | Annotated[Shards, Tag("shards")],
    Discriminator(tag),
    Named,
]


class Linear(Section):
    """One linear layer on the flattened sample: logistic or linear regression."""

    name: Literal["linear"]
    bias: bool = True
    """Whether the layer has a bias; `quadratics` wants none."""


class MLP(Section):
    """Fully connected layers with ReLU between them."""

    name: Literal["mlp"]
    hidden: list[Annotated[int, Field(ge=1)]] = Field([64])
    """Widths of the hidden layers."""


class CNN(Section):
    """Two 3x3 convolutions with GroupNorm and ReLU, pooling after each, and one linear layer."""

    name: Literal["cnn"]
    channels: int = Field(16, ge=2, multiple_of=2)
    """Channels of the first convolution; the second has twice as many. GroupNorm has two groups (Lin et al. 2021)."""


Model = Annotated[
    Annotated[Linear, Tag("linear")]
    | Annotated[MLP, Tag("mlp")]
    | Annotated[CNN, Tag("cnn")]
    | Annotated[OwnCode, Tag(OWN)],
    Discriminator(tag),
    Named,
]


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


Algorithm = Annotated[
    Annotated[DSGD, Tag("dsgd")]
    | Annotated[Hierarchical, Tag("hierarchical")]
    | Annotated[GradientTracking, Tag("gradient-tracking")]
    | Annotated[D2, Tag("d2")]
    | Annotated[ExactDiffusion, Tag("exact-diffusion")]
    | Annotated[QuasiGlobalMomentum, Tag("qg-dsgdm")]
    | Annotated[QuasiGlobalAdam, Tag("qg-dadam")]
    | Annotated[DecentLaM, Tag("decentlam")]
    | Annotated[SlowMo, Tag("slowmo")]
    | Annotated[MomentumTracking, Tag("momentum-tracking")]
    | Annotated[GlobalUpdateTracking, Tag("gut")]
    | Annotated[AllReduceSGD, Tag("allreduce")]
    | Annotated[DDP, Tag("ddp")]
    | Annotated[OwnCode, Tag(OWN)],
    Discriminator(tag),
    Named,
]


class Static(Section):
    """All edges in every round."""

    name: Literal["static"] = "static"


class Matchings(Section):
    """One partner a round: the matchings of an edge coloring of the graph, in turn."""

    name: Literal["matchings"]


class RandomMatchings(Section):
    """One partner a round at random: a maximal matching of the graph, drawn anew in each round."""

    name: Literal["random-matchings"]
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the draws, which are the same at all nodes."""


class Matcha(Section):
    """MATCHA, Wang et al. 2019: each matching of the graph is used by chance, as a communication budget allows.

    It has its own probabilities and its own weight; the topology's `weights` and `scaling` stay unsaid.
    """

    name: Literal["matcha"]
    budget: float = Field(0.5, gt=0, le=1)
    """The mean share of the matchings that a round uses; 1 is all edges in every round."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the draws, which are the same at all nodes."""


Schedule = Annotated[
    Annotated[Static, Tag("static")]
    | Annotated[Matchings, Tag("matchings")]
    | Annotated[RandomMatchings, Tag("random-matchings")]
    | Annotated[Matcha, Tag("matcha")],
    Discriminator(tag),
    Named,
]


class Topology(OpenSection):
    """Who talks to whom: a graph of the gallery or the user's own file, the mixing weights on it, and its schedule.

    Its vertices are the nodes; with algorithm hierarchical, the groups.
    """

    name: str = Field(min_length=1)
    """A name of `decentral topology list`, or a file: .py, .graphml, .gml, .edgelist, .txt, .csv, .npy or .json."""
    weights: Literal["metropolis", "uniform", "given", "column-stochastic", "fastest"] | None = None
    """metropolis: 1/(1 + max degree). uniform: 1/(1 + degree), regular graphs only. given: the edges' `weight`.
    column-stochastic: the sender's 1/(1 + degree), for push-sum. fastest: the least max(|l_2|, |l_n|) approximately, to
    1e-6, on up to 200 nodes and 1,000 edges. Unless said, what the file means, else metropolis."""
    scaling: Literal["none", "lazy", "optimal"] | Annotated[float, Field(gt=0, le=2)] = "none"
    """W_s = (1-s) I + s W in place of W. lazy: s = 1/2. optimal: what shrinks disagreement fastest, by the spectrum,
    but no more than leaves every node a weight of its own that is not negative."""
    schedule: Schedule = Static()
    """Which edges are used in which round; a schedule is the same at all nodes without communication."""


class Transport(Section):
    """How messages travel: one link per edge of the graph."""

    name: Literal["auto", "gloo", "shared-memory", "mpi", "nccl"] = "auto"
    """auto, edge by edge: NCCL between different GPUs; shared memory on one host; else MPI under mpirun, or gloo."""
    timeout_s: float = Field(30.0, gt=0, le=86_400)
    """How long a node waits for a neighbor in one exchange before it gives up (exit code 4)."""
    connect_timeout_s: float = Field(120.0, gt=0, le=86_400)
    """How long the processes wait for each other at the start."""
    interface: str | None = None
    """Network interface for gloo to listen on, such as eth0; its own choice unless given."""


class Checkpoint(Section):
    """Checkpoints of `train` and `simulate`, from which --resume goes on; `speedup` and DDP write none."""

    every: int | None = Field(None, ge=1)
    """Rounds between checkpoints, the last round's among them; without it only SIGTERM and SIGUSR1 ask for one."""
    keep: int = Field(3, ge=1)
    """How many to keep; older ones are removed once a new one is whole and on the disk."""


class Method(Section):
    """A method to compare: what it names replaces that section of the experiment, whole."""

    label: str | None = Field(None, min_length=1, max_length=60)
    """Name in tables; built from the algorithm and the topology unless given."""
    algorithm: Algorithm | None = None
    topology: Annotated[Topology, Named] | None = None
    optimizer: Annotated[Optimizer, Named] | None = None


class Experiment(Section):
    """One experiment: what is learned, by whom, how, and what it is compared with."""

    name: str = Field("experiment", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the run folder: letters, digits, dot, dash and underscore."""
    nodes: int = Field(ge=1, le=100_000)
    """Number of nodes; on real processes, one rank per node."""
    rounds: int = Field(ge=1, le=10**9)
    """Rounds to train; in a round every node takes one step."""
    batch_size: int = Field(32, ge=1)
    """Samples per node and step."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field([0], min_length=1)
    """Seeds of `speedup`, one run each; `train` and `simulate` use the first."""
    evaluate_every: int = Field(10, ge=1)
    """Rounds between evaluations on the test set; they are not counted as training time."""
    target: float | None = None
    """Score that counts as reached once every node's own model has it: accuracy; for regression, test loss at most."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of parameters and samples."""
    device: str = Field("cpu", pattern=r"^(cpu|auto|cuda(:\d+)?)$")
    """Where each rank computes: cpu; cuda, the GPU of its local rank; cuda:N; or auto, a GPU where there is one."""
    threads: int = Field(1, ge=1, le=256)
    """Threads of torch per node; the same in train and simulate, since the last bits of a sum depend on it."""
    data: Data
    partition: Partition | None = None
    """How samples are dealt to nodes: iid unless given. Data that is split by nature takes none."""
    model: Model
    optimizer: Annotated[Optimizer, Named] = Optimizer()
    algorithm: Algorithm
    topology: Annotated[Topology, Named]
    compare: list[Method] = Field([])
    """Further methods that `speedup` runs beside the file's own."""
    baselines: list[Method] = Field(
        [Method(algorithm=AllReduceSGD(name="allreduce")), Method(algorithm=DDP(name="ddp"))]
    )
    """Centralized methods that `speedup` compares with."""
    transport: Annotated[Transport, Named] = Transport()
    checkpoint: Checkpoint = Checkpoint()
    """When a run is checkpointed, and how many checkpoints are kept."""
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The experiment file's folder: relative paths in the file start there."""
        return self._folder
