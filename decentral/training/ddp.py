"""torch's own DistributedDataParallel, run as the outside peer it is: its loop, and no code of ours in its step."""

from datetime import timedelta
from time import perf_counter

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from decentral.algorithms.local import LocalOptimizer
from decentral.errors import LostNeighborError
from decentral.training.loop import Measure, Pace, check_finite
from decentral.training.task import Task
from decentral.transport.links import told
from decentral.transport.world import World


def train_ddp(task: Task, local: LocalOptimizer, world: World, epoch: int, pace: Pace, measure: Measure) -> Tensor:
    """Train one rank's module with DDP over gloo, with its defaults, on the samples of the node of that number.

    Returns:
        The final model `(d,)`, the same on every rank.

    Raises:
        DivergedError: this rank's loss is not finite.
        LostNeighborError: another rank died or stayed silent.
    """
    node = world.rank
    module, batches, loss_of = task.module(), task.batches(node), task.data.loss
    patience = timedelta(seconds=world.transport.timeout_s)
    with world.gloo_interface():
        dist.init_process_group(
            "gloo", store=world.prefixed(epoch, "ddp"), rank=node, world_size=world.size, timeout=patience
        )
    try:
        model = DistributedDataParallel(module)
        optimizer = local.factory(model.parameters(), **local.options)
        seconds = 0.0
        measure(0, seconds, {node: flat(module)}, {})
        for round in range(pace.rounds):
            began = perf_counter()
            inputs, targets = batches.next()
            optimizer.zero_grad()
            loss = loss_of(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seconds += perf_counter() - began
            check_finite({node: loss}, round)
            if pace.is_due(round):
                measure(round + 1, seconds, {node: flat(module)}, {node: loss.detach()})
    except RuntimeError as error:
        raise LostNeighborError(f"node {node} lost another node: {told(error)} (DDP, gloo)") from error
    finally:
        dist.destroy_process_group()
    return flat(module)


def flat(module: nn.Module) -> Tensor:
    """The trainable parameters, one after the other, `(d,)`."""
    return nn.utils.parameters_to_vector(p for p in module.parameters() if p.requires_grad).detach()
