"""One seed's problem: the data, who holds which samples, and the model that every node begins with."""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from zlib import crc32

import torch
from torch import Tensor, nn

from decentral.config import Experiment
from decentral.errors import ConfigError
from decentral.peer import Layout
from decentral.training import data, models, partition
from decentral.training.batches import Batches
from decentral.training.objective import Objective, flat, layout_of
from decentral.training.shift import Shift, shift_of
from decentral.training.validation import set_aside
from decentral.transport.gpu import own_place
from decentral.user_code import blame


@dataclass(frozen=True, eq=False)
class Task:
    """What is the same for every method of an experiment at one seed."""

    data: data.Data
    shards: tuple[Tensor, ...]  # of each node, indices of its training samples
    initial: nn.Module  # never trained itself; nodes get copies
    batch_sizes: tuple[int, ...]  # of each node
    seed: int
    asked: str = "cpu"  # the experiment's `device`
    shift: Shift | None = None  # how nodes see their samples; None: as they are

    @cached_property
    def device(self) -> torch.device:
        """Where this process's nodes compute.

        Raises:
            MissingEnvironmentError: there is no such device.
        """
        return own_place(self.asked)

    @cached_property
    def fingerprint(self) -> int:
        """A CRC of all samples: every node of a run must have loaded the same."""
        data, checksum = self.data, 0
        for tensor in (data.train_inputs, data.train_targets, data.test_inputs, data.test_targets):
            checksum = crc32(tensor.contiguous().numpy().tobytes(), checksum)
        return checksum

    def module(self) -> nn.Module:
        """A node's own module, at the common starting point."""
        return deepcopy(self.initial).to(self.device)

    def start(self) -> Tensor:
        """A flat copy `(d,)` of the common starting point."""
        return flat(self.initial).to(self.device)

    def batches(self, node: int) -> Batches:
        """A node's minibatches, from the first one on."""
        inputs, targets = self.samples(node)
        return Batches(inputs.to(self.device), targets.to(self.device), self.batch_sizes[node], self.seed, node)

    def samples(self, node: int, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A node's own training samples as it sees them, inputs `(N_i, ...)` and targets `(N_i, ...)`, in main memory.

        Args:
            chosen: the places among them of those that are wanted; all unless given.
        """
        held = self.shards[node]
        wanted = held if chosen is None else held[chosen]
        targets = self.data.train_targets[wanted]
        if self.shift is None:
            return self.data.train_inputs[wanted], targets
        inputs = self.shift.training(self.data.train_inputs[held], node)  # noise is drawn for all of them in order
        return (inputs if chosen is None else inputs[chosen]), targets

    def without(self, node: int) -> "Task":
        """The same where a node's samples are dealt to the others, in turn; it keeps them to be measured on."""
        others = [other for other in range(len(self.shards)) if other != node]
        shards = list(self.shards)
        for place, other in enumerate(others):
            shards[other] = torch.cat([shards[other], self.shards[node][place :: len(others)]]).sort().values
        return replace(self, shards=tuple(shards))

    def test_inputs(self, node: int) -> Tensor | None:
        """The test inputs as a node sees them, in main memory; None where it sees them as they are."""
        if self.shift is None or not self.shift.section.test:
            return None
        return self.shift.test(self.data.test_inputs, node)

    def objective(self, node: int) -> Objective:
        """A node's objective."""
        return Objective(self.module(), self.data.loss, self.batches(node))

    @property
    def dtype(self) -> torch.dtype:
        """Of the flat vector."""
        return next(p.dtype for p in self.initial.parameters() if p.requires_grad)

    @property
    def layout(self) -> Layout:
        """Where each parameter tensor lies in the flat vector."""
        return layout_of(self.initial)

    @property
    def parameters(self) -> int:
        """d, the number of trainable parameters."""
        return sum(p.numel() for p in self.initial.parameters() if p.requires_grad)


def task(experiment: Experiment, seed: int, validation: float | None = None) -> Task:
    """Load, split and build what an experiment names, and try the model on two samples.

    Args:
        validation: share of the training samples that takes the place of the test samples; None for the whole data.

    Raises:
        ConfigError: whatever the experiment or the user's code has wrong.
        MissingEnvironmentError: a package for the data is missing.
    """
    dtype = getattr(torch, experiment.dtype)
    loaded = data.load(experiment.data, experiment.nodes, seed, experiment.folder, dtype)
    if validation is not None:
        loaded = set_aside(loaded, validation, seed, experiment.data.path)
    shards = loaded.shards
    if shards is None:
        shards = partition.split(experiment.partition, loaded.train_targets, experiment.nodes, seed, loaded.origins)
    shift = shift_of(experiment.shift, loaded.sample_shape, loaded.train_inputs.dtype, seed)
    module = models.build(experiment.model, loaded.sample_shape, loaded.outputs, seed, dtype, experiment.folder)
    _try(module, loaded, experiment)
    if loaded.classes is not None and experiment.target is not None and not 0 <= experiment.target <= 1:
        raise ConfigError(f"found {experiment.target:g}; required: an accuracy from 0 to 1, such as 0.95", ("target",))
    return Task(loaded, shards, module, _batch_sizes(experiment), seed, experiment.device, shift)


def _batch_sizes(experiment: Experiment) -> tuple[int, ...]:
    asked, nodes = experiment.batch_size, experiment.nodes
    sizes = asked if isinstance(asked, list) else [asked] * nodes
    if len(sizes) != nodes:
        raise ConfigError(f"found {len(sizes)} sizes; required: one for each of {nodes} nodes", ("batch_size",))
    return tuple(sizes)


def _try(module: nn.Module, loaded: data.Data, experiment: Experiment) -> None:
    inputs, targets = loaded.train_inputs[:2], loaded.train_targets[:2]
    try:
        with torch.no_grad():
            outputs = deepcopy(module).eval()(inputs)
            loss = loaded.loss(outputs, targets)
    except Exception as error:
        raise ConfigError(
            f"model {experiment.model.name} does not take the samples of data {experiment.data.name}, "
            f"{tuple(loaded.sample_shape)} each: {blame(error)}",
            experiment.model.path,
        ) from error
    if loaded.classes is not None and outputs.shape != (*targets.shape, loaded.classes):
        required = (*targets.shape, loaded.classes)
        raise ConfigError(
            f"model {experiment.model.name} returned {tuple(outputs.shape)} for {len(inputs)} samples; required: "
            f"{required}, one for each class of data {experiment.data.name}",
            experiment.model.path,
        )
    if loss.shape != ():
        raise ConfigError(
            f"the loss of data {experiment.data.name} has shape {tuple(loss.shape)}; one number is required",
            experiment.data.path,
        )
