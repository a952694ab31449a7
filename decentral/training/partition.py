"""Who holds which samples: every sample lies on exactly one node, and no node is empty.

iid        a random split into equal parts.
dirichlet  for each class c, p_c ~ Dir(alpha 1_n); node i holds the share p_ci of the class (Hsu et al. 2019,
           arXiv:1909.06335; the class-wise draw of Yurochkin et al. 2019, arXiv:1905.12022).
shards     sorted by label, cut into equal shards, `per_node` shards to each node (McMahan et al. 2017,
           arXiv:1602.05629, section 3).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decentral import config
from decentral.errors import ConfigError
from decentral.seeding import stream

Indices = NDArray[np.int64]

DRAWS = 1000
"""Times that `dirichlet` draws before it gives up on `min_samples`."""


def split(section: config.Partition | None, targets: Tensor, nodes: int, seed: int) -> tuple[Tensor, ...]:
    """Deal samples to nodes.

    Args:
        section: how; iid where it is None.
        targets: `(N, ...)` of the training samples; `(N,)` class numbers for dirichlet and shards.
        nodes: how many nodes share them.
        seed: the run's.

    Returns:
        For each node the ascending int64 indices of its samples, `(N_i,)` with `sum_i N_i = N`.

    Raises:
        ConfigError: fewer samples than nodes, no classes to split by, or bounds that no split of these samples meets.
    """
    section = section or config.IID(name="iid")
    if len(targets) < nodes:
        raise ConfigError(
            f"{len(targets)} training samples for {nodes} nodes; every node needs at least one: lower nodes",
            section.path,
        )
    parts = PARTITIONS[section.name](section, targets, nodes, stream(seed, -1, "partition"))
    return tuple(torch.from_numpy(np.sort(part)) for part in parts)


def _iid(_section: config.IID, targets: Tensor, nodes: int, rng: np.random.Generator) -> list[Indices]:
    return np.array_split(rng.permutation(len(targets)), nodes)


def _dirichlet(section: config.Dirichlet, targets: Tensor, nodes: int, rng: np.random.Generator) -> list[Indices]:
    labels = _labels(section, targets)
    if nodes * section.min_samples > len(labels):
        raise ConfigError(
            f"{nodes} nodes with at least {section.min_samples} samples each need {nodes * section.min_samples}, "
            f"found {len(labels)}; lower min_samples or nodes",
            (*section.path, "min_samples"),
        )
    classes, sizes = np.unique(labels, return_counts=True)
    cuts = _dirichlet_cuts(section, sizes, nodes, rng)
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
    by_class = [np.split(samples, row) for samples, row in zip(members, cuts, strict=True)]
    return [np.concatenate(parts) for parts in zip(*by_class, strict=True)]


def _dirichlet_cuts(section: config.Dirichlet, sizes: Indices, nodes: int, rng: np.random.Generator) -> Indices:
    """Where each class of `sizes: (C,)` is cut, `(C, nodes - 1)`: the first draw that gives all nodes `min_samples`."""
    for _ in range(DRAWS):
        shares = rng.dirichlet(np.full(nodes, section.alpha), size=len(sizes))
        cuts = (shares.cumsum(axis=1)[:, :-1] * sizes[:, None]).astype(np.int64).clip(max=sizes[:, None])
        held = np.diff(cuts, axis=1, prepend=0, append=sizes[:, None]).sum(axis=0)
        if held.min() >= section.min_samples:
            return cuts
    raise ConfigError(
        f"dirichlet(alpha={section.alpha:g}) left one of {nodes} nodes with fewer than {section.min_samples} samples "
        f"in each of {DRAWS} draws; raise alpha, or lower min_samples or nodes",
        (*section.path, "alpha"),
    )


def _shards(section: config.Shards, targets: Tensor, nodes: int, rng: np.random.Generator) -> list[Indices]:
    labels, count = _labels(section, targets), nodes * section.per_node
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


def _labels(section: config.Dirichlet | config.Shards, targets: Tensor) -> Indices:
    if targets.is_floating_point() or targets.ndim != 1:
        raise ConfigError(
            f"partition {section.name!r} splits by class, but the targets are {targets.dtype} of shape "
            f"{tuple(targets.shape)}; it needs one integer class per sample: use partition iid",
            section.path,
        )
    labels: Indices = targets.numpy(force=True).astype(np.int64)
    return labels


PARTITIONS: dict[str, Callable[[Any, Tensor, int, np.random.Generator], list[Indices]]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
}
