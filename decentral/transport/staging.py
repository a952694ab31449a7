"""Between a node's GPU and frames in host memory, which TCP, shared memory and MPI send from."""

from typing import Any

import torch
from torch import Tensor

from decentral.peer import Payload


class Staging:
    """Copies received payloads to where the node computes, from page-locked memory where that can be had.

    A GPU reads and writes page-locked host memory by itself, at the full rate of its bus. Frames are used again and
    again, so each is locked once.

    Args:
        cuda: the CUDA runtime, as torch.cuda.cudart() gives it; found when it is first needed unless given.
    """

    def __init__(self, cuda: Any = None) -> None:
        self._cuda = cuda
        self._seen: dict[int, bool] = {}  # by a frame's address, whether it is locked

    def prepare(self, frame: Tensor, payload: Payload) -> None:
        """Lock a host frame that a payload on a GPU will be copied into or out of."""
        if frame.device.type != "cpu" or all(tensor.device.type != "cuda" for tensor in payload):
            return
        address = frame.data_ptr()
        if address not in self._seen:
            self._cuda = self._cuda or torch.cuda.cudart()  # type: ignore[no-untyped-call]
            # Memory that cannot be locked (a limit of the system, or locked already) is copied more slowly, no worse.
            self._seen[address] = int(self._cuda.cudaHostRegister(address, frame.numel(), 0)) == 0

    @staticmethod
    def landed(received: Payload, like: Payload) -> Payload:
        """A received payload on the devices of `like`; the same tensors where they are there already."""
        return tuple(tensor.to(own.device) for tensor, own in zip(received, like, strict=True))

    def close(self) -> None:
        """Unlock all frames: before their memory is given back."""
        for address, locked in self._seen.items():
            if locked:
                self._cuda.cudaHostUnregister(address)
        self._seen.clear()
