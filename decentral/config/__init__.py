"""One experiment is one tree of sections: the only place where YAML keys live.

Every field says what it is, its bound and its default; `decentral explain` and the JSON schema come from here. A plain
string stands for a section's name (`topology: ring` is `topology: {name: ring}`). Sections that end in a user's own
code (topology, optimizer, `module:function` for model and data) keep further keys as options, which are checked against
the signature of what they call.
"""

from decentral.config.algorithms import DDP, DSGD, Algorithm, AllReduceSGD, Hierarchical, Optimizer
from decentral.config.compressed import Choco
from decentral.config.compression import Compression
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
from decentral.config.data import (
    CIFAR10,
    CNN,
    GPT,
    GRU,
    IID,
    MLP,
    MNIST,
    AffineShift,
    Data,
    Digits,
    Dirichlet,
    GroupedDirichlet,
    ImageShift,
    Linear,
    Model,
    Natural,
    Partition,
    PowerLaw,
    PydocTopics,
    Quadratics,
    Quantity,
    Shards,
    Shift,
)
from decentral.config.experiment import Checkpoint, Experiment, Method, Transport
from decentral.config.section import OWN, KeyPath, Named, OpenSection, OwnCode, Section
from decentral.config.topology import Matcha, Matchings, RandomMatchings, Schedule, Static, Topology

__all__ = [
    "CIFAR10",
    "CNN",
    "D2",
    "DDP",
    "DSGD",
    "GPT",
    "GRU",
    "IID",
    "MLP",
    "MNIST",
    "OWN",
    "AffineShift",
    "Algorithm",
    "AllReduceSGD",
    "Checkpoint",
    "Choco",
    "Compression",
    "Data",
    "DecentLaM",
    "Digits",
    "Dirichlet",
    "ExactDiffusion",
    "Experiment",
    "GlobalUpdateTracking",
    "GradientTracking",
    "GroupedDirichlet",
    "Hierarchical",
    "ImageShift",
    "KeyPath",
    "Linear",
    "Matcha",
    "Matchings",
    "Method",
    "Model",
    "MomentumTracking",
    "Named",
    "Natural",
    "OpenSection",
    "Optimizer",
    "OwnCode",
    "Partition",
    "PowerLaw",
    "PydocTopics",
    "Quadratics",
    "Quantity",
    "QuasiGlobalAdam",
    "QuasiGlobalMomentum",
    "RandomMatchings",
    "Schedule",
    "Section",
    "Shards",
    "Shift",
    "SlowMo",
    "Static",
    "Topology",
    "Transport",
]
