"""What is told to whoever has a model on a GPU, which needs neither a GPU nor triton."""

import subprocess
import sys

import pytest
import torch

from decentral.compression import Space, compressor_of, require_kernels, with_kernels
from decentral.errors import ConfigError


def test_those_with_kernels_are_listed() -> None:
    assert with_kernels() == ["none", "bf16", "fp16", "int8", "sign", "top-k", "threshold"]


@pytest.mark.parametrize(
    "compression",
    ["qsgd", "natural", "low-rank", "random-k", {"name": "top-k", "values": "natural"}],
    ids=str,
)
def test_others_are_refused_by_one_line(compression: str) -> None:
    c = compressor_of(compression, Space(9, torch.float32))
    with pytest.raises(ConfigError, match=r"required: one of none, bf16, fp16, int8, sign, top-k, threshold with") as e:
        require_kernels(compression, c)
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="has no kernels"):
        c.kernels()


def test_a_model_of_float64_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"found a model of torch\.float64 on a GPU; .*float32 alone"):
        require_kernels("sign", compressor_of("sign", Space(9, torch.float64)))


def test_triton_is_not_imported_for_main_memory_and_missed_where_it_is_needed() -> None:
    program = """
import sys
sys.modules["triton"] = None  # as where it is not installed
import torch
from decentral.compression import Key, Space, compressor_of, require_kernels
from decentral.errors import MissingEnvironmentError
c = compressor_of("fp16", Space(3, torch.float32))
c.encode(torch.ones(3), c.message(), Key(0, 0, 0))
try:
    require_kernels("fp16", c)
except MissingEnvironmentError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith("found no package triton; required: triton"), done.stderr
    assert done.stdout.count("\n") == 1
