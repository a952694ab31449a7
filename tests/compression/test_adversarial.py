"""Bytes that no sender wrote: a decoder refuses them with the one error, or decodes them; it writes nowhere else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from decentral.compression import Compressor, Key, MalformedMessageError
from decentral.compression.compressor import Sink
from decentral.compression.indices import AscendingIndices
from decentral.errors import LostNeighborError
from tests.compression.entries import DTYPES, ENTRIES, KEY, drawn, made, same_bits

NAN = float("nan")
SIZES = [1, 7, 300, 2049]
GUARD = 64
TRIED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def guarded(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Zeros `(size,)` in the middle of memory that is all ones, and that memory."""
    memory = torch.ones(size + 2 * GUARD, dtype=dtype)
    return memory[GUARD : GUARD + size].zero_(), memory


def tried(compressor: Compressor, message: Tensor) -> None:
    """Decode and add a message; whatever it is, nothing outside the target is written, and none of it if refused."""
    target, memory = guarded(compressor.space.size, compressor.space.dtype)
    try:
        compressor.decode(message, target, KEY)
    except MalformedMessageError:
        with pytest.raises(MalformedMessageError, match="node 3 cannot read a message in round 17: "):
            compressor.read(message, KEY)
        with pytest.raises(MalformedMessageError, match="node 3 cannot read what node 6 sent in round 17: "):
            compressor.add(target, {6: 0.5}, {6: message}, KEY)
        assert not target.any()
    else:
        assert target.isfinite().all()
        compressor.add(target, {6: 0.5}, {6: message}, KEY)
    assert (memory[:GUARD] == 1).all()
    assert (memory[-GUARD:] == 1).all()


def as_message(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ENTRIES)
def test_random_bytes(name: str, size: int, dtype: torch.dtype) -> None:
    compressor = made(name, size, dtype)
    random = np.random.default_rng(size)
    for high in (1, 2, 16, 256):
        for _ in range(5):
            tried(compressor, torch.from_numpy(random.integers(0, high, compressor.bytes).astype(np.uint8)))
    tried(compressor, torch.full((compressor.bytes,), 0xFF, dtype=torch.uint8))


@pytest.mark.parametrize("name", ENTRIES)
@TRIED
@given(data=st.data(), size=st.sampled_from(SIZES), dtype=st.sampled_from(DTYPES))
def test_valid_messages_with_a_few_bytes_changed(name: str, data: st.DataObject, size: int, dtype: torch.dtype) -> None:
    compressor = made(name, size, dtype)
    message = compressor.encode(drawn(size, dtype), compressor.message(), KEY)
    places = st.integers(0, compressor.bytes - 1)
    for place, value in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=6)).items():
        message[place] = value
    tried(compressor, message)


@pytest.mark.parametrize("name", ENTRIES)
@TRIED
@given(content=st.binary(max_size=200))
def test_bytes_of_any_length(name: str, content: bytes) -> None:
    compressor = made(name, 7)
    tried(compressor, as_message(content))
    if len(content) != compressor.bytes:
        with pytest.raises(MalformedMessageError, match=f"required: a message of {compressor.bytes} bytes"):
            compressor.read(as_message(content), KEY)


def changed(change: Callable[[Compressor, Tensor], None], name: str, size: int = 300) -> tuple[Compressor, Tensor]:
    compressor = made(name, size)
    message = compressor.encode(drawn(size), compressor.message(), KEY)
    compressor.decode(message, torch.empty(size), KEY)
    change(compressor, message)
    return compressor, message


def last_number(value: float) -> Callable[[Compressor, Tensor], None]:
    """The last four bytes are a scale, of those that have scales last."""

    def change(_: Compressor, message: Tensor) -> None:
        message[-4:] = torch.tensor([value]).view(torch.uint8)

    return change


def first_number(value: float) -> Callable[[Compressor, Tensor], None]:
    def change(_: Compressor, message: Tensor) -> None:
        message[:4] = torch.tensor([value]).view(torch.uint8)

    return change


def bytes_at(place: int, *values: int) -> Callable[[Compressor, Tensor], None]:
    def change(_: Compressor, message: Tensor) -> None:
        begin = place % len(message)
        message[begin : begin + len(values)] = torch.tensor(values, dtype=torch.uint8)

    return change


def same_index(_: Compressor, message: Tensor) -> None:
    message[-2:] = message[-4:-2]


def of_values(compressor: Compressor, message: Tensor) -> None:
    """The last number of a chain's values."""
    end = compressor.values.bytes  # type: ignore[attr-defined]
    message[end - 4 : end] = torch.tensor([NAN]).view(torch.uint8)


FORGED = {
    "a NaN scale": ("sign", last_number(NAN), "the scale nan"),
    "a negative scale": ("qsgd 4", last_number(-1.0), "the scale -1.0"),
    "a negative zero scale": ("int8", last_number(-0.0), "the scale -0.0"),
    "an infinite scale": ("int8", last_number(float("inf")), "the scale inf"),
    "a NaN value": ("top-k", first_number(NAN), "not finite"),
    "an infinite number": ("none", first_number(float("inf")), "not finite"),
    "an infinite sum": ("sketch", first_number(float("inf")), "not finite"),
    "bits behind the signs": ("sign", bytes_at(37, 0xF0), "bits behind the last sign"),  # 300 = 37 bytes and 4 bits
    "bits behind natural's signs": ("natural", bytes_at(-1, 0xF0), "bits behind the last sign"),
    "an infinite exponent": ("natural", bytes_at(3, 0xFF), "the exponent 255"),
    "a level that is none": ("int8", bytes_at(5, 0x80), "the level -128"),
    "a level that is none, of 4 bits": ("qsgd 4", bytes_at(5, 0x08), "the level -8"),
    "a level that is none, of 2 bits": ("qsgd 2", bytes_at(5, 0b00100000), "the level -2"),
    "an infinite bfloat16": ("bf16", bytes_at(0, 0x80, 0x7F), "not finite"),
    "an infinite float16": ("fp16", bytes_at(0, 0x00, 0x7C), "not finite"),
    "an index twice": ("block-top-k 3 of 700 then qsgd", same_index, "other indices than 3 ascending ones"),
    "an index beyond the vector": ("block-top-k 3 of 700 then qsgd", bytes_at(-2, 44, 1), "other indices"),  # 300
    "no index": ("top-1", bytes_at(-1, 0), "other indices than 1 ascending ones below 300"),
    "two indices": ("top-1", bytes_at(-1, 3), "other indices than 1 ascending ones below 300"),
    "an index too large": ("top-1", bytes_at(-2, 44, 2), "other indices than 1 ascending ones below 300"),
    "a value's NaN scale": ("top-k then int8", of_values, "the scale nan"),
    "another seed": ("random-k", bytes_at(-1, 0x55), "another round or seed"),
    "another sketch": ("sketch", bytes_at(-3, 0x55), "another round or seed"),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_forged_messages_are_refused(forgery: str) -> None:
    name, change, told = FORGED[forgery]
    compressor, message = changed(change, name)
    with pytest.raises(MalformedMessageError, match=told):
        compressor.decode(message, torch.empty(300), KEY)


@pytest.mark.parametrize("name", ["random-k", "sketch", "random-k unbiased", "sketch unbiased"])
def test_another_rounds_message_is_refused(name: str) -> None:
    """Its indices or signs would be another round's: it would decode to something, and that would be wrong."""
    compressor = made(name, 300)
    message = compressor.encode(drawn(300), compressor.message(), KEY)
    for key in (KEY._replace(round=16), KEY._replace(seed=6)):
        with pytest.raises(MalformedMessageError, match="of another round or seed"):
            compressor.decode(message, torch.empty(300), key)
    compressor.decode(message, torch.empty(300), Key(KEY.seed, KEY.round, node=12))


@pytest.mark.parametrize(("size", "count"), [(1, 1), (300, 30), (70_000, 3), (70_000, 7000), (300, 300)])
def test_of_all_ways_to_say_indices_only_the_writers_is_read(size: int, count: int) -> None:
    """Whatever is read is ascending and in range, and written again gives the same bytes."""
    indices = AscendingIndices(size, count)
    random = np.random.default_rng(count)
    right = np.sort(random.choice(size, count, replace=False)).astype(np.uint32)
    message = np.empty(indices.bytes, np.uint8)
    indices.write(right, message)
    np.testing.assert_array_equal(indices.read(message), right)
    read = 0
    for _ in range(300):
        forged = message.copy()
        forged[random.integers(0, indices.bytes, 2)] ^= (1 << random.integers(0, 8, 2)).astype(np.uint8)
        try:
            found = indices.read(forged)
        except MalformedMessageError:
            continue
        read += 1
        assert found.max() < size
        assert (np.diff(found.astype(np.int64)) > 0).all()
        again = np.empty_like(forged)
        indices.write(found, again)
        assert again.tobytes() == forged.tobytes()
    assert read < 300


def test_the_error_ends_a_run_as_a_lost_neighbor_does() -> None:
    assert issubclass(MalformedMessageError, LostNeighborError)
    assert MalformedMessageError.exit_code == 4


def test_a_refused_message_leaves_the_sum_as_it_was() -> None:
    compressor, good = changed(lambda *_: None, "top-k")
    _, bad = changed(first_number(NAN), "top-k")
    x = drawn(300)
    before = x.clone()
    with pytest.raises(MalformedMessageError, match="what node 1 sent"):
        compressor.add(x, {0: 0.5, 1: 0.5}, {0: good, 1: bad}, KEY)
    assert same_bits(x, before)


def test_without_bounds_checks_the_guard_would_show() -> None:
    """The battery's own trial: an index beyond the vector, put behind the decoder's back, lands in the guard."""
    compressor = made("top-1", 7)
    target, memory = guarded(7, torch.float32)
    parts = compressor.read(compressor.encode(drawn(7), compressor.message(), KEY), KEY)
    parts.indices[0] = 9
    compressor._decode(parts, Sink(target.numpy(), np.float32(1), True), KEY)
    assert not (memory[-GUARD:] == 1).all()
