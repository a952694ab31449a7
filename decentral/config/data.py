"""The sections that say what is learned: `data:`, `partition:` (who holds which samples), `shift:` and `model:`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from decentral.config.section import OWN, Named, OwnCode, Section, tag


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
    Discriminator(tag),
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
    Discriminator(tag),
    Named,
]
