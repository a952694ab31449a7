"""Frames in host memory for payloads on a GPU. There may be none here: a stand-in for its runtime says what is asked
of it, and tensors of the meta device stand for those of a GPU where only the place matters.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from decentral.transport.staging import Staging


@dataclass
class Runtime:
    refuses: bool = False
    calls: list[tuple[str, int]] = field(default_factory=list)

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        self.calls.append(("lock", address))
        return int(self.refuses)

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        self.calls.append(("unlock", address))
        return 0


def on_a_gpu() -> Any:
    return (SimpleNamespace(device=torch.device("cuda:0")),)


def test_a_frame_is_locked_once_and_unlocked_at_the_end() -> None:
    runtime = Runtime()
    staging, frames = Staging(runtime), [torch.zeros(8, dtype=torch.uint8) for _ in range(2)]
    for frame in (frames[0], frames[1], frames[0]):
        staging.prepare(frame, on_a_gpu())
    addresses = [frame.data_ptr() for frame in frames]
    assert runtime.calls == [("lock", address) for address in addresses]
    staging.close()
    staging.close()
    assert runtime.calls[2:] == [("unlock", address) for address in addresses]


def test_what_cannot_be_locked_is_used_as_it_is() -> None:
    runtime = Runtime(refuses=True)
    staging = Staging(runtime)
    staging.prepare(torch.zeros(8, dtype=torch.uint8), on_a_gpu())
    staging.close()
    assert [call for call, _ in runtime.calls] == ["lock"]


@pytest.mark.parametrize("frame", [torch.zeros(8, dtype=torch.uint8), torch.zeros(8, device="meta")], ids=str)
def test_payloads_in_main_memory_and_frames_elsewhere_lock_nothing(frame: torch.Tensor) -> None:
    runtime = Runtime()
    Staging(runtime).prepare(frame, (torch.zeros(1),) if frame.device.type == "cpu" else on_a_gpu())
    assert runtime.calls == []


def test_a_payload_lands_where_the_node_computes() -> None:
    received = (torch.arange(3.0), torch.zeros(2, dtype=torch.uint8))
    there = Staging.landed(received, (torch.zeros(3, device="meta"), torch.zeros(2, device="meta")))
    assert [(tensor.device.type, tensor.dtype) for tensor in there] == [("meta", torch.float32), ("meta", torch.uint8)]
    here = Staging.landed(received, received)
    assert [one.data_ptr() for one in here] == [one.data_ptr() for one in received], "views, not copies"
