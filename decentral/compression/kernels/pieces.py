"""What kernels are made of; the counterpart of `decentral.compression.passes` and of the key's hash, bit for bit."""

from decentral.compression.kernels.launch import kernel, tl


@kernel
def difference(
    x: tl.tensor, reference: tl.tensor, at: tl.tensor, inside: tl.tensor, HAS_REFERENCE: tl.constexpr
) -> tl.tensor:
    """`(x - reference)[at]`, and 0 where there is no number."""
    u = tl.load(x + at, mask=inside, other=0.0)
    if HAS_REFERENCE:
        u = u - tl.load(reference + at, mask=inside, other=0.0)
    return u


@kernel
def keys_of(u: tl.tensor) -> tl.tensor:
    """The bits of |u|, int32 that order as magnitudes do."""
    return u.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@kernel
def count_unfit(unfit: tl.tensor, keys: tl.tensor, LIMIT: tl.constexpr) -> None:
    """Add to `unfit: (1,)` how many keys are LIMIT or more."""
    count = tl.sum((keys >= LIMIT).to(tl.int32))
    if count > 0:
        tl.atomic_add(unfit, count.to(tl.int64))


@kernel
def settle(
    target: tl.tensor, at: tl.tensor, inside: tl.tensor, weight: tl.tensor, values: tl.tensor, ADDING: tl.constexpr
) -> None:
    """`target[at] += weight * values`, or `<- values`. The weight is a float64's bits."""
    if ADDING:
        old = tl.load(target + at, mask=inside)
        factor = weight.to(tl.int64).to(tl.float64, bitcast=True).to(old.dtype)
        tl.store(target + at, old + factor * values.to(old.dtype), mask=inside)
    else:
        tl.store(target + at, values.to(target.dtype.element_ty), mask=inside)


@kernel
def drawn_16(low: tl.tensor, high: tl.tensor, index: tl.tensor) -> tl.tensor:
    """The higher 16 of the 32 random bits that are number `index` of the stream (low, high)."""
    x = index.to(tl.uint32) + low.to(tl.uint32)
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = x + high.to(tl.uint32)
    return ((x ^ (x >> 15)) * 0x846CA68B) >> 16
