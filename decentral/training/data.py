"""What is learned from: training and test samples with their loss, from every source in one shape.

`quadratics` is the one source with a known optimum. Node i holds

    f_i(x) = 1/2 ||A_i x - b_i||^2,   A_i = U_i diag(sqrt(linspace(mu, L, d))) V_i^T,   b_i = A_i x* - A_i^{-T} h_i

with U_i, V_i random orthogonal, ||x*|| = 1, and h_i normal, centered over the nodes and scaled to mean_i ||h_i||^2 =
zeta^2. Then grad f_i(x*) = h_i, so x* minimizes the mean of the f_i exactly (after the test problem of Vogels et al.
2021, arXiv:2110.04175). As samples: row r of node i is (sqrt(d) A_i[r], sqrt(d) b_i[r]), so that half the mean squared
error over a node's d rows is f_i.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from decentral import config
from decentral.errors import ConfigError
from decentral.seeding import stream
from decentral.training import readers, text
from decentral.user_code import called, checked_options, imported

PARTS = ("train_inputs", "train_targets", "test_inputs", "test_targets")

LARGEST_QUADRATICS = 1 << 31
"""Numbers in all A_i together: 16 GiB as they are drawn."""


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and what is made of them. Tensors have the samples first.

    Attributes:
        train_inputs: `(N, *sample_shape)`.
        train_targets: `(N,)` int64 classes, or several for each sample, or `(N, ...)` floating values.
        test_inputs: `(M, *sample_shape)`.
        test_targets: as the training targets, `(M, ...)`.
        loss: from the model's outputs `(b, outputs)` and targets `(b, ...)` to their mean loss `()`.
        classes: how many; None for regression.
        shards: int64 indices of each node's training samples, where the data is split by nature.
        optimum: the flat minimizer of the mean training loss of a linear model without bias, where it is known.
        origins: `(N,)` int64, what each training sample comes from (a topic, a writer), where that is known.
        class_names: of each class, where they have names.
        origin_names: of each origin, where they have names.
        versions: what tells this data from other versions of it, such as a digest; recorded with every run.
    """

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    classes: int | None
    shards: tuple[Tensor, ...] | None = None
    optimum: Tensor | None = None
    origins: Tensor | None = None
    class_names: Sequence[str] | None = None
    origin_names: Sequence[str] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Features that the model's last layer must have."""
        return self.classes if self.classes is not None else prod(self.train_targets.shape[1:])

    def tested_on(self, device: torch.device) -> "Data":
        """The same, with test samples and optimum on a device; training samples stay in main memory."""
        optimum = None if self.optimum is None else self.optimum.to(device)
        inputs, targets = self.test_inputs.to(device), self.test_targets.to(device)
        return replace(self, test_inputs=inputs, test_targets=targets, optimum=optimum)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train_inputs.shape[1:])


def half_mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """`1/2 mean (outputs - targets)^2`, `()`; outputs `(b, 1)` stand for targets `(b,)`."""
    # nn.functional.mse_loss would broadcast first, and a view of the outputs is one more thing to go back through: on
    # small models both take as long as all the rest.
    loss: Tensor = torch.ops.aten.mse_loss.default(outputs, targets.reshape(outputs.shape))
    return loss / 2


def load(section: config.Data, nodes: int, seed: int, folder: Path, dtype: torch.dtype) -> Data:
    """The data that an experiment names, floating tensors in `dtype`.

    Args:
        section: which data.
        nodes: how many nodes will share it; `quadratics` has one objective for each.
        seed: the run's; `quadratics` is drawn from it, all else is the same for every seed.
        folder: the experiment file's, where relative paths and the user's own module start.
        dtype: of floating inputs and targets.

    Raises:
        ConfigError: files, options or the user's function are at fault.
        MissingEnvironmentError: a package that the data comes with is not installed.
    """
    loader = LOADERS[config.OWN if isinstance(section, config.OwnCode) else section.name]
    return loader(section, nodes=nodes, seed=seed, folder=folder, dtype=dtype)


def _digits(section: config.Digits, *, dtype: torch.dtype, **_: Any) -> Data:
    return _images(readers.digits(section.test_fraction), dtype)


def _mnist(section: config.MNIST, *, folder: Path, dtype: torch.dtype, **_: Any) -> Data:
    return _images(readers.mnist(folder / section.root, (*section.path, "root")), dtype)


def _cifar10(section: config.CIFAR10, *, folder: Path, dtype: torch.dtype, **_: Any) -> Data:
    return _images(readers.cifar10(folder / section.root, (*section.path, "root")), dtype)


def _images(raw: readers.RawImages, dtype: torch.dtype) -> Data:
    """Ten classes of images, standardized per channel by the training images (where scaling to [0, 1] cancels)."""
    mean, deviation = _channel_statistics(raw.train_images)
    train, test = (
        images.to(dtype).sub_(mean.to(dtype)).div_(deviation.to(dtype))
        for images in (raw.train_images, raw.test_images)
    )
    return Data(train, raw.train_labels, test, raw.test_labels, cross_entropy, classes=10)


def _channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1 where constant) of each channel of uint8 `(N, C, H, W)`: `(C, 1, 1)` float64.

    From counts of the 256 levels, which are exact: sums of floating numbers would depend on the number of threads.
    """
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).double()
    levels = torch.arange(256, dtype=torch.float64)
    mean = counts @ levels / counts.sum(1)
    deviation = (counts @ levels.square() / counts.sum(1) - mean.square()).clamp_min(0).sqrt()
    deviation[deviation == 0] = 1
    return mean.view(-1, 1, 1), deviation.view(-1, 1, 1)


def _quadratics(section: config.Quadratics, *, nodes: int, seed: int, dtype: torch.dtype, **_: Any) -> Data:
    _check_quadratics(section, nodes)
    d = section.dimension
    optimum = stream(seed, -1, "optimum").standard_normal(d)
    optimum /= np.linalg.norm(optimum)
    a, b = np.empty((nodes, d, d)), np.empty((nodes, d))
    scales = np.sqrt(np.linspace(section.mu, section.smoothness, d))
    for node, h in enumerate(_gradients_at_optimum(section, nodes, seed)):
        rng = stream(seed, node, "quadratics")
        u, v = _orthogonal(rng, d), _orthogonal(rng, d)
        a[node] = u * scales @ v.T
        b[node] = u @ (scales * (v.T @ optimum) - (v.T @ h) / scales)  # A^{-T} = U diag(1/scales) V^T
    inputs, targets = (torch.from_numpy(np.sqrt(d) * rows).to(dtype) for rows in (a.reshape(-1, d), b.reshape(-1)))
    shards = torch.arange(nodes * d).view(nodes, d).unbind()
    minimizer = torch.from_numpy(optimum).to(dtype)
    return Data(inputs, targets, inputs, targets, half_mean_squared_error, None, shards, minimizer)


def _check_quadratics(section: config.Quadratics, nodes: int) -> None:
    if section.mu > section.smoothness:
        raise ConfigError(
            f"mu is {section.mu:g} and smoothness {section.smoothness:g}; mu must not exceed smoothness",
            (*section.path, "mu"),
        )
    if nodes * section.dimension**2 > LARGEST_QUADRATICS:
        raise ConfigError(
            f"{nodes} matrices of {section.dimension} x {section.dimension} are more than {LARGEST_QUADRATICS:,} "
            "numbers; lower dimension or nodes",
            (*section.path, "dimension"),
        )


def _gradients_at_optimum(section: config.Quadratics, nodes: int, seed: int) -> NDArray[np.float64]:
    """h, `(nodes, d)`: with mean zero, and mean square norm zeta^2; a single node's is zero."""
    h = np.stack([stream(seed, node, "heterogeneity").standard_normal(section.dimension) for node in range(nodes)])
    if nodes == 1 or section.zeta2 == 0:
        return np.zeros_like(h)
    h -= h.mean(axis=0)
    scaled: NDArray[np.float64] = h * np.sqrt(section.zeta2 / np.square(h).sum(axis=1).mean())
    return scaled


def _orthogonal(rng: np.random.Generator, d: int) -> NDArray[np.float64]:
    """Uniform over the orthogonal matrices (Mezzadri 2007, arXiv:math-ph/0609050): QR with R's diagonal positive."""
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    uniform: NDArray[np.float64] = q * np.sign(np.diag(r))
    return uniform


def _pydoc_topics(section: config.PydocTopics, **_: Any) -> Data:
    texts = text.pydoc_topics()
    try:
        cut = text.windows(texts, section.context, section.test_fraction)
    except ValueError as error:
        raise ConfigError(f"{error}; lower context", (*section.path, "context")) from error
    return Data(
        cut.train[:, :-1].contiguous(),
        cut.train[:, 1:].contiguous(),
        cut.test[:, :-1].contiguous(),
        cut.test[:, 1:].contiguous(),
        text.next_character_loss,
        classes=len(cut.vocabulary),
        origins=cut.origins,
        class_names=["space" if character == " " else repr(character)[1:-1] for character in cut.vocabulary],
        origin_names=list(texts),
        versions={"pydoc_data.topics": f"sha256 {text.digest(texts)}"},
    )


def _own(section: config.OwnCode, *, nodes: int, folder: Path, dtype: torch.dtype, **_: Any) -> Data:
    function = imported(section.name, folder, section.path)
    found = called(function, options=checked_options(function, section.options, section.path), at=section.path)
    parts = [getattr(found, part) for part in PARTS] if isinstance(found, Data) else found
    if not (isinstance(parts, tuple | list) and len(parts) == len(PARTS)):
        count = f" of {len(parts)}" if isinstance(parts, tuple | list) else ""
        required = f"it must return a decentral Data or the tuple ({', '.join(PARTS)})"
        raise _fault(section, f"returned {type(found).__name__}{count}; {required}")
    data = _completed(section, found, parts, dtype)
    for fault in _faults(data, nodes):
        raise _fault(section, fault)
    return data


def _completed(section: config.OwnCode, found: Any, parts: Sequence[Any], dtype: torch.dtype) -> Data:
    """The Data that was found, or one with the loss that suits the targets, of tensors in any case."""
    x, y, test_x, test_y = (_tensor(section, part, value, dtype) for part, value in zip(PARTS, parts, strict=True))
    if isinstance(found, Data):
        known = None if found.optimum is None else _tensor(section, "optimum", found.optimum, dtype)
        return replace(found, train_inputs=x, train_targets=y, test_inputs=test_x, test_targets=test_y, optimum=known)
    if y.is_floating_point():
        return Data(x, y, test_x, test_y, half_mean_squared_error, classes=None)
    return Data(x, y, test_x, test_y, cross_entropy, classes=1 + max(int(y.max()), int(test_y.max())))


def _tensor(section: config.OwnCode, part: str, value: Any, dtype: torch.dtype) -> Tensor:
    """The user's tensor or array: floating numbers in `dtype`, targets that are not floating as int64."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))
    if not isinstance(value, Tensor) or value.is_complex():
        kind = type(value).__name__ + (f" of {value.dtype}" if hasattr(value, "dtype") else "")
        raise _fault(section, f"returned {part} as {kind}; it must be a tensor or NumPy array of real numbers")
    if value.ndim == 0 or value.numel() == 0:
        raise _fault(section, f"returned {part} of shape {tuple(value.shape)}; it must hold at least one sample")
    if not value.is_floating_point():
        return value.long() if part.endswith("targets") else value
    tensor = value.detach().to(dtype)
    if not tensor.isfinite().all():
        raise _fault(section, f"returned {part} with NaN or infinity in {dtype}; every number must be finite")
    return tensor


def _faults(data: Data, nodes: int) -> Iterator[str]:
    """What is wrong with the user's data; the first is told."""
    train, test = (data.train_inputs, data.train_targets), (data.test_inputs, data.test_targets)
    for part, (inputs, targets) in (("train", train), ("test", test)):
        if len(inputs) != len(targets):
            yield f"returned {len(inputs)} {part}_inputs and {len(targets)} {part}_targets; they must be equally many"
    for part, first, second in (("inputs", train[0], test[0]), ("targets", train[1], test[1])):
        if (first.dtype, first.shape[1:]) != (second.dtype, second.shape[1:]):
            yield f"returned train_{part} {_kind(first)} and test_{part} {_kind(second)}; both must be of one kind"
    if data.classes is not None:
        yield from _class_faults(data, data.classes)
    if (origins := data.origins) is not None and (origins.shape != (len(train[0]),) or origins.is_floating_point()):
        yield f"returned origins {_kind(origins)}; it must be one integer for each of {len(train[0])} training samples"
    if data.shards is not None:
        yield from _shard_faults(data.shards, len(data.train_inputs), nodes)


def _class_faults(data: Data, classes: int) -> Iterator[str]:
    for targets in (data.train_targets, data.test_targets):
        if targets.is_floating_point() or (data.loss is cross_entropy and targets.ndim != 1):
            yield f"returned targets {_kind(targets)}; class targets must be one integer per sample"
        low, high = int(targets.min()), int(targets.max())
        if low < 0:
            yield f"returned target {low}; class targets must be 0 or more"
        if high >= classes:
            yield f"returned target {high}; with {classes} classes the targets must lie in 0..{classes - 1}"


def _shard_faults(shards: tuple[Tensor, ...], samples: int, nodes: int) -> Iterator[str]:
    if len(shards) != nodes:
        yield f"returned {len(shards)} shards; it must return one for each of the {nodes} nodes"
    for node, shard in enumerate(shards):
        if shard.dtype != torch.int64 or shard.ndim != 1 or len(shard) == 0:
            yield f"returned shard {node} {_kind(shard)}; it must be a list of int64 indices, not empty"
        if shard.min() < 0 or shard.max() >= samples:
            yield f"returned shard {node} with indices from {shard.min()} to {shard.max()} of {samples} samples"


def _kind(tensor: Tensor) -> str:
    return f"of {tensor.dtype} and shape {tuple(tensor.shape)}"


def _fault(section: config.OwnCode, what: str) -> ConfigError:
    return ConfigError(f"{section.name} {what}", section.path)


LOADERS: dict[str, Callable[..., Data]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "quadratics": _quadratics,
    "pydoc-topics": _pydoc_topics,
    config.OWN: _own,
}
