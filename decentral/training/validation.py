"""Training samples that are set aside to choose by, so that the test set is left for the last word."""

from dataclasses import replace

import torch

from decentral.config import KeyPath
from decentral.errors import ConfigError
from decentral.seeding import stream
from decentral.training.data import Data


def set_aside(data: Data, share: float, seed: int, at: KeyPath) -> Data:
    """The same data without its test samples: a random part of the training samples takes their place.

    Args:
        data: N training samples that are not dealt to nodes yet.
        share: of the training samples, `max(1, round(share N))` of them.
        seed: which samples are drawn depends on it alone.
        at: where the data stands in the experiment file.

    Raises:
        ConfigError: the data comes dealt to nodes, or nothing would be left to train on.
    """
    if data.shards is not None:
        raise ConfigError(
            "this data comes dealt to nodes, and tune sets samples aside before they are dealt; "
            "use data without shards, or leave --tune away",
            at,
        )
    samples = len(data.train_targets)
    count = max(1, round(share * samples))
    if count >= samples:
        raise ConfigError(
            f"{count} of {samples} training samples are to be set aside; some must be left: lower tune.validation", at
        )
    order = torch.from_numpy(stream(seed, -1, "validation").permutation(samples))
    chosen, left = order[:count].sort().values, order[count:].sort().values
    return replace(
        data,
        train_inputs=data.train_inputs[left],
        train_targets=data.train_targets[left],
        test_inputs=data.train_inputs[chosen],
        test_targets=data.train_targets[chosen],
        origins=None if data.origins is None else data.origins[left],
    )
