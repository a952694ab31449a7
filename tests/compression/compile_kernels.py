"""Compile every kernel for compute capability 9.0, which takes no GPU, from the arguments that it is started with.

The interpreter lets through what the compiler refuses. Prints a line for each kernel and its constants: how many fused
multiply-adds, flushes of subnormals and divisions that are not rounded to the nearest its assembly has. Run without
TRITON_INTERPRET; nothing is executed, so no message is one.
"""

import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from decentral.compression import MalformedMessageError, Space, compressor, compressor_of
from decentral.compression.kernels import casting, launch, quantized, sign, sparse
from tests.compression.entries import KEY, drawn

SUBJECTS = [
    {"name": "none"},
    {"name": "bf16"},
    {"name": "fp16"},
    {"name": "sign"},
    {"name": "int8"},
    {"name": "int8", "rounding": "nearest", "block": 100},
    {"name": "int8", "block": 5000},
    {"name": "top-k", "values": "fp16"},
]
POINTED = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}
seen = set()


def type_of(argument: Any) -> str:
    if isinstance(argument, torch.Tensor):
        return f"*{POINTED[argument.dtype]}"
    if isinstance(argument, float):
        return "fp32"
    return "i32" if -(1 << 31) <= argument < 1 << 31 else "i64"


def compiled(function: Any, programs: int, device: torch.device, *arguments: Any, **constants: Any) -> None:
    """In the place of `launch`."""
    signature = dict(zip(function.arg_names, map(type_of, arguments), strict=False))
    signature |= dict.fromkeys(constants, "constexpr")
    name = f"{function.fn.__module__.rpartition('.')[2]}.{function.fn.__name__}"
    # HAS_REFERENCE and the like leave code out, so those with all of it stand for the others.
    variant = (name, *signature.values(), *constants.values())
    if variant in seen or not all(value for word, value in constants.items() if "HAS" in word):
        return
    seen.add(variant)
    source = ASTSource(function, signature, constants)
    assembly = triton.compile(source, GPUTarget("cuda", 90, 32), launch.OPTIONS).asm["ptx"]
    found = [len(re.findall(pattern, assembly)) for pattern in (r"\bfma\.", r"\.ftz", r"div\.(full|approx)")]
    sys.stdout.write(f"{name} {found[0]} {found[1]} {found[2]}\n")


compressor.is_on_gpu = lambda x: True  # type: ignore[attr-defined]
for module in (casting, quantized, sign, sparse):
    module.launch = compiled  # type: ignore[attr-defined]
for subject in SUBJECTS:
    c = compressor_of(subject, Space(9001, torch.float32))
    x, reference, message = drawn(9001), torch.zeros(9001), c.message()
    kernels = c.kernels()
    kernels.encode(x, reference, reference, 1.0, message, KEY)
    try:
        parts = kernels.checked(c.message(), KEY)
    except MalformedMessageError:
        parts = sparse.Parts(torch.arange(90), torch.zeros(90, dtype=torch.int16))
    for sums in (x, x.double()):
        kernels.decode(parts, sums, 1.0, True, KEY)
