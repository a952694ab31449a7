"""Where transfers run beside the computation: a side stream of a GPU, or, over engines that block, no stream at all."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor


class Mark(Protocol):
    """A place in the order of a stream's work."""

    def query(self) -> bool:
        """Whether all before it is done."""


class Side(Protocol):
    """The order in which one node's transfers run. It holds up the computation only where that asks for it.

    Attributes:
        place: the type of device whose memory transfers read and write.
    """

    place: str

    def entered(self) -> AbstractContextManager[None]:
        """Within it, work goes to the side; it waits for all that the computation was given before."""

    def follow(self, work: Any, timeout_s: float) -> None:
        """Let what comes next on the side wait for a process group's work; call it within `entered`."""

    def mark(self) -> Mark:
        """The side's end, as it is now."""

    def hold(self, mark: Mark) -> None:
        """Let the computation's next work wait for a mark; this thread goes on."""

    def memory(self, size: int) -> Tensor:
        """`(size,)` uint8 zeros, where the side's transfers read and write."""

    def notes(self, size: int) -> Tensor:
        """`(size,)` uint8 in host memory, which the side copies to and from without anybody waiting.

        Memory that is dropped is used again only when the side has done with it: torch sees to that.
        """


class _Done:
    def query(self) -> bool:
        return True


class NoSide:
    """For engines whose work blocks the thread that waits for it: whatever was begun is over at once."""

    place = "cpu"

    def entered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def follow(self, work: Any, timeout_s: float) -> None:
        work.wait(timedelta(seconds=max(timeout_s, 1e-3)))

    def mark(self) -> Mark:
        return _Done()

    def hold(self, mark: Mark) -> None:
        """Nothing to wait for."""

    def memory(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8)

    def notes(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8)


class CudaSide:
    """A stream of one GPU, ahead of the computation's wherever both have work.

    Args:
        gpu: which.
    """

    place = "cuda"

    def __init__(self, gpu: torch.device) -> None:
        self._gpu = gpu
        self._stream = torch.cuda.Stream(gpu, priority=-1)  # type: ignore[no-untyped-call]

    @contextmanager
    def entered(self) -> Iterator[None]:
        self._stream.wait_stream(torch.cuda.current_stream(self._gpu))
        with torch.cuda.stream(self._stream):
            yield

    def follow(self, work: Any, timeout_s: float) -> None:  # noqa: ARG002  a wait with a timeout would block this thread
        work.wait()

    def mark(self) -> Mark:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def hold(self, mark: Mark) -> None:
        torch.cuda.current_stream(self._gpu).wait_event(mark)  # type: ignore[arg-type]

    def memory(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8, device=self._gpu)

    def notes(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8, pin_memory=True)
