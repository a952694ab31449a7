"""Every compressor of the registry, with the options that matter: whoever enters here enters the battery."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from decentral.compression import Compressor, Key, Space, compressor_of
from decentral.peer import Block, Layout

ENTRIES: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "bf16": {"name": "bf16"},
    "fp16": {"name": "fp16"},
    "int8": {"name": "int8"},
    "int8 to the nearest, blocks of 100": {"name": "int8", "rounding": "nearest", "block": 100},
    "qsgd 2": {"name": "qsgd", "bits": 2},
    "qsgd 4": {"name": "qsgd"},
    "qsgd 8": {"name": "qsgd", "bits": 8},
    "qsgd 2 inf blocks": {"name": "qsgd", "bits": 2, "norm": "inf", "block": 512},
    "qsgd 4 l2 blocks": {"name": "qsgd", "bits": 4, "block": 36},
    "qsgd 2 contractive": {"name": "qsgd", "bits": 2, "unbiased": False},
    "natural": {"name": "natural"},
    "sign": {"name": "sign"},
    "sign of the vector": {"name": "sign", "norms": "vector"},
    "top-k": {"name": "top-k", "fraction": 0.1},
    "top-1": {"name": "top-k", "k": 1},
    "top-k then int8": {"name": "top-k", "fraction": 0.1, "values": "int8"},
    "top-k then sign": {"name": "top-k", "fraction": 0.1, "values": "sign"},
    "top-all": {"name": "top-k", "fraction": 1.0},
    "threshold": {"name": "threshold", "fraction": 0.1},
    "threshold then fp16": {"name": "threshold", "fraction": 0.02, "values": {"name": "fp16"}},
    "block-top-k": {"name": "block-top-k"},
    "block-top-k 3 of 700 then qsgd": {
        "name": "block-top-k",
        "block": 700,
        "keep": 3,
        "values": {"name": "qsgd", "bits": 8},
    },
    "random-k": {"name": "random-k", "fraction": 0.1},
    "random-k unbiased": {"name": "random-k", "fraction": 0.25, "unbiased": True},
    "random-k own": {"name": "random-k", "fraction": 0.1, "shared": False},
    "random-k own unbiased then natural": {
        "name": "random-k",
        "fraction": 0.3,
        "shared": False,
        "unbiased": True,
        "values": {"name": "natural"},
    },
    "sketch": {"name": "sketch", "fraction": 0.1},
    "sketch unbiased": {"name": "sketch", "fraction": 0.25, "unbiased": True},
    "low-rank": {"name": "low-rank"},
    "low-rank 4": {"name": "low-rank", "rank": 4},
}
SIZE = 5003
LAYOUT: Layout = (
    Block("hidden.weight", (50, 60), 0),
    Block("hidden.bias", (50,), 3000),
    Block("embedding", (1000,), 3050),
    Block("convolution", (19, 1, 47), 4050),
    Block("scale", (), 4943),
    Block("last", (59,), 4944),
)
DTYPES = [torch.float32, torch.float64]
RANDOM = [
    name
    for name in ENTRIES
    if any(word in name for word in ("int8", "qsgd", "natural", "random", "sketch", "low-rank"))
    and "nearest" not in name
]
KEY = Key(seed=5, round=17, node=3)


def made(name: str, size: int, dtype: torch.dtype = torch.float32) -> Compressor:
    """The entry's compressor, of the layout where the size is that of it."""
    return compressor_of(ENTRIES[name], Space(size, dtype, LAYOUT if size == SIZE else ()))


def drawn(size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Numbers of different magnitudes, both zeros among them where there is room."""
    random = np.random.default_rng(seed)
    x = torch.from_numpy(random.standard_normal(size) * np.exp(random.standard_normal(size))).to(dtype)
    if size > 2:
        x[0], x[size // 2] = -0.0, 0.0
    return x


def decoded(compressor: Compressor, x: Tensor, key: Key = KEY) -> Tensor:
    """C(x), over a message."""
    message = compressor.encode(x, compressor.message(), key)
    return compressor.decode(message, torch.full_like(x, 7.0), key)


def same_bits(one: Tensor, other: Tensor) -> bool:
    return one.numpy().tobytes() == other.numpy().tobytes()
