"""Which GPU a process takes. There may be none here, so torch is made to tell of some."""

import pytest
import torch

from decentral.config import Transport
from decentral.errors import ConfigError, MissingEnvironmentError
from decentral.transport import nccl
from decentral.transport.gpu import CPU, identity, own_place, placed
from decentral.transport.launcher import Launched
from decentral.transport.world import World


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("asked", "local_rank", "expected"),
    [
        ("cpu", 1, "cpu"),
        ("cuda", None, "cuda:0"),
        ("cuda", 1, "cuda:1"),
        ("cuda", 3, "cuda:1"),
        ("auto", 1, "cuda:1"),
        ("cuda:0", 1, "cuda:0"),
    ],
)
def test_the_local_rank_picks_the_gpu_unless_it_is_numbered(asked: str, local_rank: int, expected: str) -> None:
    assert placed(asked, local_rank) == torch.device(expected)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(MissingEnvironmentError, match=r"device: cuda:2, but this machine has GPUs 0 to 1; use one"):
        placed("cuda:2")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("asked", ["cuda", "cuda:0"])
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(asked: str) -> None:
    assert placed("auto", 1) == placed("cpu") == CPU
    with pytest.raises(MissingEnvironmentError, match=rf"device: {asked}, but .*; use device: auto or cpu"):
        placed(asked)


@pytest.mark.usefixtures("two_gpus")
def test_the_launcher_tells_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "1"}
    for name, value in {**torchrun, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert own_place("cuda") == torch.device("cuda:1")


def test_the_cpu_has_no_gpu_identity_and_no_nccl() -> None:
    assert identity(CPU) is None
    assert not nccl.is_available(CPU)


def test_nccl_on_the_cpu_is_refused_with_its_key() -> None:
    with pytest.raises(ConfigError, match="transport: nccl moves GPU memory, but this rank computes on the CPU") as it:
        World.join(Launched("torchrun", 0, 1, "127.0.0.1", True, 1), Transport(name="nccl"), 1, 7, CPU)
    assert it.value.at == ("name",)
