"""The minibatches of one node: sampling without replacement, in epochs over the node's own samples."""

import torch
from torch import Tensor

from decentral.seeding import integer_seed, stream


class Batches:
    """Batch k is a function of (seed, node, k) alone, so setting `taken` resumes the sequence at any point.

    Each epoch is a fresh permutation of the samples, cut into batches of exactly `batch_size`; what is left over, fewer
    than a batch, sits that epoch out. Where `batch_size` reaches the number of samples, every batch is all of them, in
    their own order: the full gradient.

    Args:
        inputs: `(N, ...)` samples of this node.
        targets: `(N, ...)` their targets.
        batch_size: samples per batch.
        seed: the run's.
        node: whose samples these are; nodes draw independently.

    Attributes:
        taken: batches that `next` has given so far, over all epochs.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int, seed: int, node: int) -> None:
        assert 0 < len(inputs) == len(targets), (len(inputs), len(targets))
        self._inputs, self._targets = inputs, targets
        self._samples, self._batch_size = len(inputs), min(batch_size, len(inputs))
        self._seed, self._node = seed, node
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)
        self.taken = 0

    @property
    def per_epoch(self) -> int:
        """Batches in one epoch."""
        return self._samples // self._batch_size

    def integer_seed(self, purpose: str) -> int:
        """63 bits for another stream of the same node."""
        return integer_seed(self._seed, self._node, purpose)

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch: inputs `(b, ...)` and targets `(b, ...)`, with b the smaller of batch_size and N."""
        epoch, position = divmod(self.taken, self.per_epoch)
        self.taken += 1
        if self._batch_size == self._samples:
            return self._inputs, self._targets
        start = position * self._batch_size
        chosen = self._permutation(epoch)[start : start + self._batch_size]
        return self._inputs.index_select(0, chosen), self._targets.index_select(0, chosen)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            order = stream(self._seed, self._node, f"epoch {epoch}").permutation(self._samples)
            self._epoch, self._order = epoch, torch.from_numpy(order).to(self._inputs.device)
        return self._order
