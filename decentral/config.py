"""One experiment is one tree of sections: the only place where YAML keys live.

Every field says what it is, its bound and its default; `decentral explain` and the JSON schema come from here. A plain
string stands for a section's name (`topology: ring` is `topology: {name: ring}`). Sections that end in a user's own
code (topology, optimizer, `module:function` for model and data) keep further keys as options, which are checked against
the signature of what they call.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, PrivateAttr, Tag

KeyPath = tuple[str | int, ...]

OWN = "module:function"
"""The tag of a section that names the user's own code."""


class Section(BaseModel):
    """A mapping of the experiment file. `path` is where it stands there, for error messages."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    _path: KeyPath = PrivateAttr(default=())

    @property
    def path(self) -> KeyPath:
        return self._path


class OpenSection(Section):
    """A section whose further keys are options of what its name stands for."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _named(raw: Any) -> Any:
    return {"name": raw} if isinstance(raw, str) else raw


def _tag(raw: Any) -> str | None:
    name = raw.get("name") if isinstance(raw, dict) else getattr(raw, "name", None)
    return OWN if isinstance(name, str) and ":" in name else name


Named = BeforeValidator(_named)


class OwnCode(OpenSection):
    """The user's own function or class, by `module:function`; further keys are its keyword arguments."""

    centralized: ClassVar[bool] = False

    name: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`, importable from the experiment's folder or the current one."""


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


class PydocTopics(Section):
    """Characters of the texts that every Python carries for its own help, by topic: `pydoc_data.topics`.

    They differ between versions of Python, so their sha256 is recorded with a run. A paragraph that stands in several
    topics is kept in the first; windows of `context` characters do not overlap and do not cross topics.
    """

    name: Literal["pydoc-topics"]
    context: int = Field(64, ge=2, le=4096)
    """Characters of a sample; the target of each is the character after it."""
    test_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of each topic's windows, its last ones, that is held out for testing."""


Data = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[MNIST, Tag("mnist")]
    | Annotated[CIFAR10, Tag("cifar10")]
    | Annotated[Quadratics, Tag("quadratics")]
    | Annotated[PydocTopics, Tag("pydoc-topics")]
    | Annotated[OwnCode, Tag(OWN)],
    Discriminator(_tag),
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


class GroupedDirichlet(Section):
    """The Dirichlet split of the quasi-global momentum paper's code (Lin et al. 2021), which is not the plain one.

    Nodes in groups of `group` share a random part of the samples in proportion; inside it every class is spread by a
    draw from Dirichlet(alpha) over those nodes that hold less than an equal share so far. Sizes stay within bounds.
    """

    name: Literal["dirichlet-grouped"]
    alpha: float = Field(1.0, gt=0, le=1e6)
    """Small alpha: few classes on each node. Large alpha: nearly iid."""
    group: int = Field(10, ge=1)
    """Nodes of a group; the last one takes the rest."""
    min_share: float = Field(0.5, ge=0, lt=1)
    """Draw again until every node holds this part of an equal share."""


class Quantity(Section):
    """Quantity skew: the nodes' sizes are drawn from Dirichlet(alpha), the classes are iid (Li et al. 2022)."""

    name: Literal["quantity"]
    alpha: float = Field(1.0, gt=0, le=1e6)
    """Small alpha: few nodes hold nearly everything. Large alpha: equal sizes."""
    min_samples: int = Field(2, ge=1)
    """Draw again until every node holds at least this many samples."""


class PowerLaw(Section):
    """Quantity skew: the k-th largest node holds a share in proportion to k^-exponent, the classes are iid."""

    name: Literal["power-law"]
    exponent: float = Field(1.0, ge=0, le=10)
    """0: equal sizes. 1: the second node holds half of what the first holds."""
    min_samples: int = Field(2, ge=1)
    """What the smallest node must get at least, else the split is refused."""


class Natural(Section):
    """As the data came about: all samples of one origin (a topic, a writer) on one node, all nodes about as full."""

    name: Literal["natural"]


Partition = Annotated[
    Annotated[IID, Tag("iid")]
    | Annotated[Dirichlet, Tag("dirichlet")]
    | Annotated[GroupedDirichlet, Tag("dirichlet-grouped")]
    | Annotated[Shards, Tag("shards")]
    | Annotated[Quantity, Tag("quantity")]
    | Annotated[PowerLaw, Tag("power-law")]
    | Annotated[Natural, Tag("natural")],
    Discriminator(_tag),
    Named,
]


class ImageShift(Section):
    """Every node sees its images rotated, lit and made noisy in a way of its own, fixed for the run."""

    name: Literal["images"]
    rotation: float = Field(0.0, ge=0, le=180)
    """Degrees; each node's angle is drawn from -rotation to rotation."""
    contrast: float = Field(0.0, ge=0, lt=1)
    """Each node's pixels are multiplied by a factor from 1 - contrast to 1 + contrast."""
    brightness: float = Field(0.0, ge=0, le=10)
    """Each node's pixels are moved by a number from -brightness to brightness, in their standard deviations."""
    noise: float = Field(0.0, ge=0, le=10)
    """Each image gets normal noise, of a deviation that is drawn for each node from 0 to noise."""
    test: bool = False
    """Whether a node's own model is tested on test samples as that node sees them; the averaged model never is."""


class AffineShift(Section):
    """Every node sees each feature scaled and moved in a way of its own, fixed for the run: x <- exp(s) x + t."""

    name: Literal["affine"]
    scale: float = Field(0.0, ge=0, le=5)
    """Standard deviation of s, drawn for each node and feature."""
    offset: float = Field(0.0, ge=0, le=100)
    """Standard deviation of t, drawn for each node and feature."""
    test: bool = False
    """Whether a node's own model is tested on test samples as that node sees them; the averaged model never is."""


Shift = Annotated[
    Annotated[ImageShift, Tag("images")] | Annotated[AffineShift, Tag("affine")],
    Discriminator(_tag),
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
    hidden: list[Annotated[int, Field(ge=1)]] = [64]
    """Widths of the hidden layers."""


class CNN(Section):
    """Two 3x3 convolutions with GroupNorm and ReLU, pooling after each, and one linear layer."""

    name: Literal["cnn"]
    channels: int = Field(16, ge=2, multiple_of=2)
    """Channels of the first convolution; the second has twice as many. GroupNorm has two groups (Lin et al. 2021)."""


class GRU(Section):
    """A language model: an embedding, a gated recurrent unit, and one linear layer over the vocabulary."""

    name: Literal["gru"]
    width: int = Field(128, ge=1)
    """Numbers of the embedding and of each layer's state."""
    layers: int = Field(1, ge=1, le=64)
    """Recurrent layers, one on top of the other."""


class GPT(Section):
    """A language model: a small transformer with causal attention and LayerNorm before each part of a block."""

    name: Literal["gpt"]
    width: int = Field(64, ge=2)
    """Numbers per position between blocks; `heads` must divide it."""
    heads: int = Field(4, ge=1)
    """Attention heads of each block."""
    layers: int = Field(2, ge=1, le=64)
    """Blocks: attention, then a hidden layer of four times the width."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of a block's outputs dropped in training."""


Model = Annotated[
    Annotated[Linear, Tag("linear")]
    | Annotated[MLP, Tag("mlp")]
    | Annotated[CNN, Tag("cnn")]
    | Annotated[GRU, Tag("gru")]
    | Annotated[GPT, Tag("gpt")]
    | Annotated[OwnCode, Tag(OWN)],
    Discriminator(_tag),
    Named,
]


class Optimizer(OpenSection):
    """The local optimizer of every node: any torch.optim class by import path; further keys are its options."""

    name: str = Field("torch.optim.SGD", pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")
    """Import path of a torch.optim.Optimizer, such as torch.optim.AdamW."""
    lr: float = Field(0.1, gt=0)
    """Learning rate."""


class DSGD(Section):
    """Decentralized (gossip) SGD, Lian et al. 2017, in one of its three orders."""

    centralized: ClassVar[bool] = False
    name: Literal["dsgd"]
    order: Literal["adapt-then-combine", "combine-then-adapt", "adapt-while-communicate"] = "adapt-then-combine"
    """Which comes first, the local step or the mixing; adapt-while-communicate hides the wire behind the gradient."""
    every: int = Field(1, ge=1)
    """tau: mix in every tau-th round only, and take local steps in between (PA-SGD)."""
    compression: Literal["none", "bf16"] = "none"
    """What neighbors are sent of a model: all of it, or its values rounded to bfloat16, half the bytes."""


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
    | Annotated[AllReduceSGD, Tag("allreduce")]
    | Annotated[DDP, Tag("ddp")]
    | Annotated[OwnCode, Tag(OWN)],
    Discriminator(_tag),
    Named,
]


class Static(Section):
    """All edges in every round."""

    name: Literal["static"] = "static"


class Matchings(Section):
    """One partner a round: the matchings of an edge coloring of the graph, in turn."""

    name: Literal["matchings"]


Schedule = Annotated[
    Annotated[Static, Tag("static")] | Annotated[Matchings, Tag("matchings")],
    Discriminator(_tag),
    Named,
]


class Topology(OpenSection):
    """Who talks to whom: a graph of the gallery or the user's own file, the mixing weights on it, and its schedule.

    Its vertices are the nodes; with algorithm hierarchical, the groups.
    """

    name: str = Field(min_length=1)
    """A name of `decentral topology list`, or a path to a .py, .graphml, .edgelist or .txt file."""
    weights: Literal["metropolis", "uniform", "given", "column-stochastic"] | None = None
    """metropolis: 1/(1 + max degree). uniform: 1/(1 + degree), regular graphs only. given: the edges' `weight`.
    column-stochastic: the sender's 1/(1 + degree), for push-sum. Unless said, what the file means, else metropolis."""
    scaling: Literal["none", "lazy", "optimal"] | Annotated[float, Field(gt=0, le=2)] = "none"
    """W_s = (1-s) I + s W in place of W. lazy: s = 1/2. optimal: what shrinks disagreement fastest, by the spectrum."""
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
    diagnostics: list[Literal["gradients", "predictions", "edges"]] = ["gradients", "predictions"]
    """What evaluations measure beside scores and consensus distance, off the training clock; [] for nothing.

    gradients: heterogeneity and diversity of the nodes' gradients, one on up to 256 samples of each node, and one more
    mean over all nodes. predictions: where nodes disagree with the averaged model. edges: a bound on the consensus
    distance from neighbors' differences; between processes it costs one more mean for every node.
    """
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
    shift: Shift | None = None
    """Feature shift: how each node sees the samples that it holds, whatever the partition; as they are unless given."""
    model: Model
    optimizer: Annotated[Optimizer, Named] = Optimizer()
    algorithm: Algorithm
    topology: Annotated[Topology, Named]
    compare: list[Method] = []
    """Further methods that `speedup` runs beside the file's own."""
    baselines: list[Method] = [
        Method(algorithm=AllReduceSGD(name="allreduce")),
        Method(algorithm=DDP(name="ddp")),
    ]
    """Centralized methods that `speedup` compares with."""
    transport: Annotated[Transport, Named] = Transport()
    checkpoint: Checkpoint = Checkpoint()
    """When a run is checkpointed, and how many checkpoints are kept."""
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The experiment file's folder: relative paths in the file start there."""
        return self._folder
