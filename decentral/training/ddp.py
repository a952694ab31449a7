"""torch's own DistributedDataParallel, run as the outside peer it is: its loop, and no code of ours in its step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from time import perf_counter

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from decentral.algorithms.local import LocalOptimizer
from decentral.errors import ConfigError, LostNeighborError
from decentral.training.batches import Batches
from decentral.training.loop import Measure, Pace, Unchecked
from decentral.training.objective import flat
from decentral.training.straggling import Straggling
from decentral.training.task import Task
from decentral.transport.gloo import told_by_gloo
from decentral.transport.world import World

LossOf = Callable[[Tensor, Tensor], Tensor]
"""From outputs `(b, outputs)` and targets `(b, ...)` to their mean loss `()`."""

_UNUSED = "Expected to have finished reduction"


def train_ddp(
    module: nn.Module,
    task: Task,
    local: LocalOptimizer,
    world: World,
    epoch: int,
    pace: Pace,
    measure: Measure,
    straggling: Straggling | None = None,
) -> None:
    """Train one rank's module with DDP, with its defaults, on the samples of the node of that number.

    Args:
        straggling: how slow this rank is, if it is to be slower.

    Raises:
        ConfigError: a model that DDP cannot train.
        DivergedError: this rank's loss is not finite.
        LostNeighborError: another rank died or stayed silent.
    """
    node = world.rank
    batches, loss_of = task.batches(node), task.data.loss
    torch.manual_seed(batches.integer_seed("forward"))  # dropout draws from torch's one generator
    with ddp_group(world, epoch):
        model = DistributedDataParallel(module)
        if straggling is not None:
            model.register_comm_hook(straggling, _sent_late)
        optimizer = local.factory(model.parameters(), **local.options)
        seconds = 0.0
        unchecked = Unchecked(on_gpu=task.device.type == "cuda")
        measure(0, seconds, {node: flat(module)}, {})
        for round in range(pace.rounds):
            began = perf_counter()
            local.begin_round(optimizer, round)
            with straggling.step() if straggling else nullcontext():
                loss = ordinary_step(model, optimizer, batches, loss_of)
            unchecked.add(round, {node: loss.detach()})
            if pace.is_due(round):
                unchecked.check()
            seconds += perf_counter() - began
            if pace.is_due(round):
                measure(round + 1, seconds, {node: flat(module)}, {node: loss.detach()})


def _sent_late(
    straggling: Straggling,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """What DDP does with a bucket of gradients, when it would be there on a rank that is slow."""
    straggling.reached()
    return allreduce_hook(None, bucket)  # type: ignore[arg-type]


def ordinary_step(model: nn.Module, optimizer: Optimizer, batches: Batches, loss_of: LossOf) -> Tensor:
    """One step of an ordinary PyTorch loop; the minibatch loss `()`."""
    inputs, targets = batches.next()
    optimizer.zero_grad()
    loss = loss_of(model(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


@contextmanager
def ddp_group(world: World, epoch: int) -> Iterator[None]:
    """torch's default process group, over gloo or NCCL, for the length of the block; its faults become ours.

    Raises:
        ConfigError: a model that DDP cannot train.
        LostNeighborError: another rank died or stayed silent.
    """
    patience = timedelta(seconds=max(world.transport.timeout_s, world.transport.connect_timeout_s))
    store, backend = world.prefixed(epoch, "ddp"), world.ddp_backend(epoch)
    try:
        with world.gloo_interface():
            dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=patience)
        yield
    except RuntimeError as error:
        if _UNUSED in str(error):
            raise ConfigError(
                "DDP cannot train this model: some of its parameters take no part in the loss; freeze them "
                "(requires_grad=False) or leave the ddp baseline out"
            ) from error
        if (how := told_by_gloo(error)) is None:
            raise
        raise LostNeighborError(f"node {world.rank} lost another node: {how} (DDP, {backend})") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
