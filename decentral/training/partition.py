"""Who holds which samples: every sample lies on exactly one node, and no node is empty.

iid                a random split into equal parts.
dirichlet          for each class c, p_c ~ Dir(alpha 1_n); node i holds the share p_ci of the class (Hsu et al. 2019,
                   arXiv:1909.06335; the class-wise draw of Yurochkin et al. 2019, arXiv:1905.12022).
dirichlet-grouped  the split in the code of Lin et al. 2021 (arXiv:2102.04761): see `_grouped_dirichlet`.
shards             sorted by label, cut into equal shards, `per_node` shards to each node (McMahan et al. 2017,
                   arXiv:1602.05629, section 3).
quantity           node i holds the share q_i of all samples, q ~ Dir(alpha 1_n) (Li et al. 2022, arXiv:2102.02079).
power-law          the k-th largest share is in proportion to k^-exponent; which node is the k-th is drawn.
natural            whole origins (topics, writers), each to the node that holds the least so far.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decentral import config
from decentral.errors import ConfigError
from decentral.seeding import stream

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

DRAWS = 1000
"""Times that a split is drawn before it gives up on the size that every node must have."""


class Samples(NamedTuple):
    """What a split may look at."""

    targets: Tensor  # (N, ...)
    origins: Tensor | None  # (N,) int64

    def __len__(self) -> int:
        return len(self.targets)


def split(
    section: config.Partition | None, targets: Tensor, nodes: int, seed: int, origins: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Deal samples to nodes.

    Args:
        section: how; iid where it is None.
        targets: `(N, ...)` of the training samples; `(N,)` class numbers for what splits by class.
        nodes: how many nodes share them.
        seed: the run's.
        origins: `(N,)` numbers of what each sample comes from, for natural.

    Returns:
        For each node the ascending int64 indices of its samples, `(N_i,)` with `sum_i N_i = N`.

    Raises:
        ConfigError: fewer samples than nodes, nothing to split by, or bounds that no split of these samples meets.
    """
    section = section or config.IID(name="iid")
    if len(targets) < nodes:
        raise ConfigError(
            f"{len(targets)} training samples for {nodes} nodes; every node needs at least one: lower nodes",
            section.path,
        )
    parts = PARTITIONS[section.name](section, Samples(targets, origins), nodes, stream(seed, -1, "partition"))
    return tuple(torch.from_numpy(np.sort(part)) for part in parts)


def _iid(_section: config.IID, samples: Samples, nodes: int, rng: np.random.Generator) -> list[Indices]:
    return np.array_split(rng.permutation(len(samples.targets)), nodes)


def _dirichlet(section: config.Dirichlet, samples: Samples, nodes: int, rng: np.random.Generator) -> list[Indices]:
    labels = _labels(section, samples)
    _check_minimum(section, len(labels), nodes)
    classes, sizes = np.unique(labels, return_counts=True)
    cuts = _dirichlet_cuts(section, sizes, nodes, rng)
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
    by_class = [np.split(held, row) for held, row in zip(members, cuts, strict=True)]
    return [np.concatenate(parts) for parts in zip(*by_class, strict=True)]


def _dirichlet_cuts(section: config.Dirichlet, sizes: Indices, nodes: int, rng: np.random.Generator) -> Indices:
    """Where each class of `sizes: (C,)` is cut, `(C, nodes - 1)`: the first draw that gives all nodes `min_samples`."""
    for _ in range(DRAWS):
        cuts = _cuts(rng.dirichlet(np.full(nodes, section.alpha), size=len(sizes)), sizes[:, None])
        held = np.diff(cuts, axis=1, prepend=0, append=sizes[:, None]).sum(axis=0)
        if held.min() >= section.min_samples:
            return cuts
    raise _never_enough(section, nodes, f"{section.min_samples} samples", "raise alpha, or lower min_samples or nodes")


def _cuts(shares: Floats, sizes: Any) -> Indices:
    """Where a range is cut into shares `(..., n)`: `(..., n - 1)`."""
    # A sum of shares that falls short of 1 by its rounding would leave one sample to a node without a share.
    cuts: Indices = (shares.cumsum(axis=-1)[..., :-1] * sizes + 1e-9).astype(np.int64).clip(max=sizes)
    return cuts


def _grouped_dirichlet(
    section: config.GroupedDirichlet, samples: Samples, nodes: int, rng: np.random.Generator
) -> list[Indices]:
    """Nodes in groups, the samples in random chunks that are as large for their group as all are for all nodes.

    Inside a group of m nodes with a chunk of S samples, class by class: p ~ Dir(alpha 1_m); p_i = 0 for nodes that hold
    S / m samples or more by now; the class is cut by p over its sum. Draw all again until each holds min_share S / m.
    """
    labels = _labels(section, samples)
    order = rng.permutation(len(labels))
    firsts = [*range(0, nodes, section.group), nodes]
    chunks = np.split(order, [len(order) * first // nodes for first in firsts[1:-1]])
    parts: list[Indices] = []
    for chunk, members in zip(chunks, np.diff(firsts).tolist(), strict=True):
        parts += _of_one_group(section, chunk, labels[chunk], members, rng)
    return parts


def _of_one_group(
    section: config.GroupedDirichlet, chunk: Indices, labels: Indices, members: int, rng: np.random.Generator
) -> list[Indices]:
    """The chunk's samples `(S,)` of such labels `(S,)`, dealt to a group's members."""
    by_class = [chunk[labels == label] for label in np.unique(labels)]
    least = max(1, int(section.min_share * len(chunk) / members))
    for _ in range(DRAWS):
        parts: list[list[Indices]] = [[] for _ in range(members)]
        held = np.zeros(members, dtype=np.int64)
        for of_class in by_class:
            shares = rng.dirichlet(np.full(members, section.alpha)) * (held < len(chunk) / members)
            if not shares.sum() > 0:  # a tiny alpha leaves all to a node that is full
                break
            dealt = np.split(of_class, _cuts(shares / shares.sum(), len(of_class)))
            for part, more in zip(parts, dealt, strict=True):
                part.append(more)
            held += [len(more) for more in dealt]
        if held.sum() == len(chunk) and held.min() >= least:
            return [np.concatenate(part) for part in parts]
    raise _never_enough(section, members, f"{least} samples", "raise alpha, or lower min_share or nodes")


def _shards(section: config.Shards, samples: Samples, nodes: int, rng: np.random.Generator) -> list[Indices]:
    labels, count = _labels(section, samples), nodes * section.per_node
    if count > len(labels):
        raise ConfigError(
            f"{nodes} nodes with {section.per_node} shards each need at least {count} samples, found {len(labels)}; "
            "lower per_node or nodes",
            (*section.path, "per_node"),
        )
    shuffled = rng.permutation(len(labels))
    shards = np.array_split(shuffled[np.argsort(labels[shuffled], kind="stable")], count)
    hands = rng.permutation(count).reshape(nodes, section.per_node)
    return [np.concatenate([shards[shard] for shard in hand]) for hand in hands]


def _quantity(section: config.Quantity, samples: Samples, nodes: int, rng: np.random.Generator) -> list[Indices]:
    count = len(samples.targets)
    _check_minimum(section, count, nodes)
    for _ in range(DRAWS):
        cuts = _cuts(rng.dirichlet(np.full(nodes, section.alpha)), count)
        if np.diff(cuts, prepend=0, append=count).min() >= section.min_samples:
            return np.split(rng.permutation(count), cuts)
    raise _never_enough(section, nodes, f"{section.min_samples} samples", "raise alpha, or lower min_samples or nodes")


def _power_law(section: config.PowerLaw, samples: Samples, nodes: int, rng: np.random.Generator) -> list[Indices]:
    count = len(samples.targets)
    shares = np.arange(1, nodes + 1, dtype=np.float64) ** -section.exponent
    sizes = np.diff(_cuts(shares / shares.sum(), count), prepend=0, append=count)
    if sizes.min() < section.min_samples:
        raise ConfigError(
            f"power-law(exponent={section.exponent:g}) gives the smallest of {nodes} nodes {sizes.min()} of {count} "
            f"samples; required: {section.min_samples}: lower exponent, min_samples or nodes",
            (*section.path, "exponent"),
        )
    return np.split(rng.permutation(count), rng.permutation(sizes).cumsum()[:-1])


def _natural(section: config.Natural, samples: Samples, nodes: int, rng: np.random.Generator) -> list[Indices]:
    if samples.origins is None:
        raise ConfigError(
            "partition 'natural' keeps samples of one origin together, and this data does not say where its samples "
            "come from; use pydoc-topics, or give a decentral Data with origins",
            section.path,
        )
    origins = samples.origins.numpy(force=True)
    names, sizes = np.unique(origins, return_counts=True)
    if len(names) < nodes:
        raise ConfigError(
            f"{len(names)} origins for {nodes} nodes; every node needs one of its own: lower nodes", section.path
        )
    shuffled = rng.permutation(len(names))
    held, owner = np.zeros(nodes, dtype=np.int64), np.empty(len(names), dtype=np.int64)
    for which in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        owner[which] = held.argmin()
        held[owner[which]] += sizes[which]
    holder = rng.permutation(nodes)[owner][np.searchsorted(names, origins)]
    return [np.flatnonzero(holder == node) for node in range(nodes)]


def _labels(section: config.Dirichlet | config.GroupedDirichlet | config.Shards, samples: Samples) -> Indices:
    targets = samples.targets
    if targets.is_floating_point() or targets.ndim != 1:
        raise ConfigError(
            f"partition {section.name!r} splits by class, but the targets are {targets.dtype} of shape "
            f"{tuple(targets.shape)}; it needs one integer class per sample: use partition iid",
            section.path,
        )
    labels: Indices = targets.numpy(force=True).astype(np.int64)
    return labels


def _check_minimum(section: config.Dirichlet | config.Quantity, count: int, nodes: int) -> None:
    if nodes * section.min_samples > count:
        raise ConfigError(
            f"{nodes} nodes with at least {section.min_samples} samples each need {nodes * section.min_samples}, "
            f"found {count}; lower min_samples or nodes",
            (*section.path, "min_samples"),
        )


def _never_enough(
    section: config.Dirichlet | config.GroupedDirichlet | config.Quantity, nodes: int, least: str, remedy: str
) -> ConfigError:
    return ConfigError(
        f"{section.name}(alpha={section.alpha:g}) left one of {nodes} nodes with fewer than {least} "
        f"in each of {DRAWS} draws; {remedy}",
        (*section.path, "alpha"),
    )


PARTITIONS: dict[str, Callable[[Any, Samples, int, np.random.Generator], list[Indices]]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "dirichlet-grouped": _grouped_dirichlet,
    "shards": _shards,
    "quantity": _quantity,
    "power-law": _power_law,
    "natural": _natural,
}
