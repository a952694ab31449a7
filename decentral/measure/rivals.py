"""What gossip is timed against, as outside code runs it: torch's DDP in several settings, and decent-dp.

DDP's PowerSGD hook is not among them: over gloo it issues collectives from the callbacks of others, whose order differs
between ranks, and hangs or aborts (tried with torch 2.13).
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from decentral.measure.prepared import Prepared
from decentral.training.ddp import ordinary_step

Step = Callable[[int], object]
"""Takes one step; the argument is its round."""

Made = tuple[Step, Callable[[], None]]
"""A subject's step, and what waits for the last communication that its steps have begun."""


def ddp(ready: Prepared, node: int, **settings: Any) -> Made:
    """DistributedDataParallel with some of its arguments, in an ordinary loop."""
    return _loop(ready, node, DistributedDataParallel(ready.task.module(), **settings))


def ddp_in_fp16(ready: Prepared, node: int) -> Made:
    """DDP that sends gradients in half precision, by torch's own hook."""
    model = DistributedDataParallel(ready.task.module())
    model.register_comm_hook(None, fp16_compress_hook)
    return _loop(ready, node, model)


def decent_dp(ready: Prepared, node: int, topology: str) -> Made:
    """decent-dp's wrapper, whose hooks step and communicate bucket by bucket, behind the next step's computation."""
    from decent_dp.ddp import DecentralizedDataParallel
    from loguru import logger

    logger.disable("decent_dp")
    model = DecentralizedDataParallel(
        ready.task.module(), partial(_bucket_optimizer, ready), topology=topology, _local_world_size=1
    )
    batches, loss_of = ready.task.batches(node), ready.task.data.loss

    def step(_round: int) -> None:
        inputs, targets = batches.next()
        loss_of(model(inputs), targets).backward()  # type: ignore[no-untyped-call]

    def finish() -> None:
        for pending in model._comm_ops:
            if pending is not None:
                with suppress(RuntimeError):  # waited for before
                    pending.wait()

    return step, finish


def _bucket_optimizer(ready: Prepared, named: Iterable[tuple[str, Tensor]]) -> Any:
    return ready.local.factory([tensor for _, tensor in named], **ready.local.options)


def _loop(ready: Prepared, node: int, model: nn.Module) -> Made:
    batches, loss_of = ready.task.batches(node), ready.task.data.loss
    optimizer = ready.local.factory(model.parameters(), **ready.local.options)

    def step(_round: int) -> None:
        ordinary_step(model, optimizer, batches, loss_of)

    return step, nothing


def nothing() -> None:
    """All of a step's communication ends with it."""


RIVALS: dict[str, Callable[[Prepared, int], Made]] = {
    "ddp": ddp,
    "ddp bucket view": partial(ddp, gradient_as_bucket_view=True),
    "ddp static graph": partial(ddp, gradient_as_bucket_view=True, static_graph=True),
    "ddp fp16": ddp_in_fp16,
    "decent-dp ring": partial(decent_dp, topology="ring"),
    "decent-dp one-peer exponential": partial(decent_dp, topology="one-peer-exp"),
}
