"""Frames: what is packed is read back, and whatever else arrives is refused by name."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from decentral.peer import Payload
from decentral.transport.frames import (
    HEADER_BYTES,
    MAGIC,
    FrameError,
    Stamp,
    check_header,
    fill,
    payload_bytes,
    payload_views,
    signature,
)

WIDTHS = Stamp(run=64, epoch=32, sender=32, round=64, sequence=64, signature=32, payload_bytes=64)
USED = (*range(6), *range(8, 56))  # bytes 6 and 7 and the last eight are padding

stamps = st.builds(Stamp, *(st.integers(0, 2**bits - 1) for bits in WIDTHS))
dtypes = st.sampled_from(
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
    ]
)
shapes = st.lists(st.integers(0, 5), max_size=3)


@st.composite
def payloads(draw: st.DrawFn) -> Payload:
    """A few tensors of any dtype and shape, empty ones and single numbers included."""
    kinds = draw(st.lists(st.tuples(dtypes, shapes), max_size=6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return tuple(random_tensor(shape, dtype, generator) for dtype, shape in kinds)


def random_tensor(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    return (128 * torch.rand(shape, generator=generator)).to(dtype)


def new_frame(payload: Payload) -> Tensor:
    return torch.zeros(HEADER_BYTES + payload_bytes(payload), dtype=torch.uint8)


@given(stamps)
def test_a_packed_stamp_is_accepted(stamp: Stamp) -> None:
    header = stamp.pack()
    assert len(header) == HEADER_BYTES
    check_header(header, stamp)


@given(stamps, st.sampled_from(Stamp._fields), st.data())
def test_a_stamp_that_differs_in_one_field_is_refused_with_its_name(
    stamp: Stamp, name: str, data: st.DataObject
) -> None:
    values = st.integers(0, 2 ** getattr(WIDTHS, name) - 1).filter(lambda value: value != getattr(stamp, name))
    other = stamp._replace(**{name: data.draw(values)})
    with pytest.raises(FrameError) as caught:
        check_header(other.pack(), stamp)
    words = f"{name.replace('_', ' ')} {getattr(other, name)}, expected {getattr(stamp, name)}"
    assert str(caught.value) == words


@given(stamps, st.sampled_from(USED), st.integers(1, 255))
@example(Stamp(0, 0, 0, 0, 0, 0, 0), 0, 1)
def test_every_mutated_byte_is_refused(stamp: Stamp, place: int, flip: int) -> None:
    """Neither gloo nor NCCL looks at what it carries; these 54 bytes are all that stands between a stray message and
    the model. The text says which part is wrong.
    """
    header = bytearray(stamp.pack())
    header[place] ^= flip
    with pytest.raises(FrameError) as caught:
        check_header(bytes(header), stamp)
    part = "no frame" if place < 4 else "frame version" if place < 6 else "torn header"
    assert part in str(caught.value)


@given(stamps, st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
@example(Stamp(0, 0, 0, 0, 0, 0, 0), bytes(HEADER_BYTES))
@example(Stamp(0, 0, 0, 0, 0, 0, 0), MAGIC.ljust(HEADER_BYTES, b"\0"))
def test_random_bytes_are_refused(stamp: Stamp, noise: bytes) -> None:
    with pytest.raises(FrameError):
        check_header(noise, stamp)


@given(payloads())
def test_what_is_filled_in_is_viewed_again(payload: Payload) -> None:
    frame = new_frame(payload)
    fill(frame, Stamp(1, 2, 3, 4, 5, signature(payload), payload_bytes(payload)), payload)
    views = payload_views(frame, payload)
    assert len(views) == len(payload)
    for view, tensor in zip(views, payload, strict=True):
        assert (view.dtype, view.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(view, tensor)


@given(payloads())
def test_views_lie_aligned_and_apart_inside_the_frame(payload: Payload) -> None:
    """A view beyond the frame would hand foreign memory to an algorithm, and one over another would mix two tensors.
    An unaligned one is refused by torch on the first run with an odd size: so the property is over all sizes.
    """
    frame = new_frame(payload)
    begin, end = frame.data_ptr() + HEADER_BYTES, frame.data_ptr() + frame.nbytes
    previous_end = begin
    for view in payload_views(frame, payload):
        if view.numel() == 0:
            continue
        assert view.data_ptr() % view.element_size() == 0
        assert view.data_ptr() >= previous_end
        previous_end = view.data_ptr() + view.nbytes
        assert previous_end <= end
        assert view.is_contiguous()


@given(payloads())
def test_filling_touches_nothing_beyond_the_frame(payload: Payload) -> None:
    guarded = torch.full((HEADER_BYTES + payload_bytes(payload) + 32,), 0xA5, dtype=torch.uint8)
    fill(guarded[:-32], Stamp(0, 0, 0, 0, 0, 0, 0), payload)
    assert guarded[-32:].eq(0xA5).all()


@given(payloads())
def test_a_view_writes_into_the_frame(payload: Payload) -> None:
    """Receivers read in place: a view that is a copy would show the message before last."""
    frame = new_frame(payload)
    for view, tensor in zip(payload_views(frame, payload), payload, strict=True):
        view.copy_(tensor)
    again = payload_views(frame, payload)
    assert all(torch.equal(view, tensor) for view, tensor in zip(again, payload, strict=True))


def test_a_tensor_that_is_not_contiguous_is_sent_as_it_reads() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    payload = (matrix.t(), matrix[:, 1], torch.ones(1).expand(5))
    frame = new_frame(payload)
    fill(frame, Stamp(0, 0, 0, 0, 0, 0, 0), payload)
    assert all(torch.equal(view, sent) for view, sent in zip(payload_views(frame, payload), payload, strict=True))


@given(payloads(), payloads())
def test_payloads_of_one_signature_are_of_one_kind(first: Payload, second: Payload) -> None:
    def kinds(payload: Payload) -> list[tuple[torch.Size, torch.dtype]]:
        return [(tensor.shape, tensor.dtype) for tensor in payload]

    assert (signature(first) == signature(second)) == (kinds(first) == kinds(second))


def test_equal_bytes_of_another_kind_have_another_signature() -> None:
    """Two floats and one double are 8 bytes each, and so are a row and a column: length alone would let them pass."""
    kinds = [
        (torch.zeros(2),),
        (torch.zeros(1, 2),),
        (torch.zeros(2, 1),),
        (torch.zeros(1, dtype=torch.float64),),
        (torch.zeros(2, dtype=torch.int32),),
        (torch.zeros(1), torch.zeros(1, dtype=torch.uint8)),
    ]
    assert len({signature(kind) for kind in kinds}) == len(kinds)
