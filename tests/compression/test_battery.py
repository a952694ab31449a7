"""What every compressor promises, tried on each."""

from math import sqrt

import numpy as np
import pytest
import torch

from decentral.compression import COMPRESSORS, Compressor, Key, Space, compressor_of
from decentral.compression.compressor import MalformedMessageError
from decentral.config.compression import Compression
from decentral.errors import DivergedError
from tests.compression.entries import DTYPES, ENTRIES, KEY, LAYOUT, RANDOM, SIZE, decoded, drawn, made, same_bits

BYTES = {  # of 5003 float32 numbers: counted by hand from each file's description of its message
    "none": 4 * 5003,
    "bf16": 2 * 5003,
    "fp16": 2 * 5003,
    "int8": 5003 + 4 * 10,
    "int8 to the nearest, blocks of 100": 5003 + 4 * 51,
    "qsgd 2": 1251 + 4,
    "qsgd 4": 2502 + 4,
    "qsgd 8": 5003 + 4,
    "qsgd 2 inf blocks": 1251 + 4 * 10,
    "qsgd 4 l2 blocks": 2502 + 4 * 139,
    "qsgd 2 contractive": 1251 + 4,
    "natural": 5003 + 626,
    "sign": 626 + 4 * 6,
    "sign of the vector": 626 + 4,
    "top-k": 4 * 500 + 500 + 65,  # 500 low bytes, 500 + 20 bits
    "top-1": 4 + 2 + 1,  # the whole index fits into two low bytes, and one bit says where
    "top-k then int8": 500 + 4 + 565,
    "top-k then sign": 63 + 4 + 565,
    "top-all": 4 * 5003 + 5003 + 628,
    "threshold": 4 * 500 + 565,
    "threshold then fp16": 2 * 100 + 100 + 15,
    "block-top-k": 5 * 40,  # 39 blocks of 128 and one of 11
    "block-top-k 3 of 700 then qsgd": 22 + 4 + 2 * 22,  # 7 blocks, and 1 of the last 103
    "random-k": 4 * 500 + 8,
    "random-k unbiased": 4 * 1250 + 8,
    "random-k own": 4 * 500 + 8,
    "random-k own unbiased then natural": 1500 + 188 + 8,
    "sketch": 4 * 500 + 8,
    "sketch unbiased": 4 * 1250 + 8,
    "low-rank": 4 * (110 + 50 + 1000 + 66 + 1 + 59),
    "low-rank 4": 4 * (4 * 110 + 50 + 1000 + 4 * 66 + 1 + 59),
}
TRIALS = 200


def test_the_battery_has_all_compressors_and_the_configuration_too() -> None:
    assert {options["name"] for options in ENTRIES.values()} == COMPRESSORS.keys()
    assert {tag.tag for _, tag in (item.__metadata__ and (item, item.__metadata__[-1]) for item in members())} == set(
        COMPRESSORS
    )


def members() -> tuple[object, ...]:
    return Compression.__origin__.__args__  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("name", ENTRIES)
def test_a_message_has_the_bytes_that_are_stated(name: str) -> None:
    compressor = made(name, SIZE)
    message = compressor.message()
    assert (message.dtype, message.shape) == (torch.uint8, (BYTES[name],))
    assert compressor.bytes == BYTES[name]
    message.fill_(0xFF)
    assert compressor.encode(drawn(SIZE), message, KEY) is message
    again = compressor.encode(drawn(SIZE), compressor.message(), KEY)
    assert torch.equal(message, again), "some bytes were not written"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 7, 63, 65, 1025, SIZE])
@pytest.mark.parametrize("name", ENTRIES)
def test_the_copies_of_a_vector_at_all_nodes_stay_equal(name: str, size: int, dtype: torch.dtype) -> None:
    """CHOCO's xhat at its own node, and at a neighbor that has the messages alone, signs of zeros included."""
    compressor = made(name, size, dtype)
    memory = compressor.memory(KEY)
    own, copy = torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=dtype)
    for round in range(6):
        key, x = KEY._replace(round=round), drawn(size, dtype, seed=round // 3)
        message = compressor.encode_difference(x, own, compressor.message(), key, memory=memory)
        compressor.add(copy, {3: 1.0}, {3: message}, key._replace(node=8))
        assert same_bits(own, copy)
    if memory is None and compressor.contraction == 1:
        torch.testing.assert_close(own, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_a_step_and_a_residual_are_taken_with_what_was_sent(name: str, dtype: torch.dtype) -> None:
    compressor, x, h = made(name, SIZE, dtype), drawn(SIZE, dtype), drawn(SIZE, dtype, seed=1)
    stepped = h.clone()
    message = compressor.encode_difference(x, stepped, compressor.message(), KEY, step=0.3)
    compressor.add(h, {0: 0.3}, {0: message}, KEY)
    assert same_bits(stepped, h)
    left, expected = x.clone(), x.clone()
    message = compressor.encode_residual(left, compressor.message(), KEY)
    compressor.add(expected, {0: -1.0}, {0: message}, KEY)
    assert same_bits(left, expected)


@pytest.mark.parametrize("name", ENTRIES)
def test_weighted_messages_are_added_in_ascending_order(name: str) -> None:
    compressor, nodes, weights = made(name, SIZE), (4, 0, 2), {4: 0.3, 0: 0.5, 2: 0.7}
    messages = {j: compressor.encode(drawn(SIZE, seed=j), compressor.message(), KEY._replace(node=j)) for j in nodes}
    found = drawn(SIZE, seed=9)
    expected = found.clone()
    compressor.add(found, weights, messages, KEY)
    for j in sorted(nodes):
        expected += np.float32(weights[j]) * compressor.decode(messages[j], torch.empty(SIZE), KEY)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ENTRIES)
def test_sums_over_all_rounds_are_in_float64(name: str) -> None:
    """Of what is decoded in float32, as the sender has it: no bit more of it, and no rounding of the sum."""
    compressor, weights = made(name, SIZE), {4: 0.1, 0: 1 / 3}
    messages = {j: compressor.encode(drawn(SIZE, seed=j), compressor.message(), KEY._replace(node=j)) for j in weights}
    found = drawn(SIZE, torch.float64, seed=9)
    expected = found.clone()
    compressor.add(found, weights, messages, KEY)
    for j in sorted(weights):
        expected += weights[j] * compressor.decode(messages[j], torch.empty(SIZE), KEY).double()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [40, 1500])
@pytest.mark.parametrize("name", ENTRIES)
def test_delta_and_omega_are_as_stated(name: str, size: int) -> None:
    """The mean over many rounds of |C(x) - x|^2 / |x|^2, and of C(x) where it is unbiased, within 5 standard errors."""
    layout = tuple(LAYOUT_1500) if size == 1500 else ()
    compressor = compressor_of(ENTRIES[name], Space(size, torch.float64, layout))
    x = drawn(size, torch.float64, seed=2)
    rounds = [decoded(compressor, x, Key(1, round, 0)) for round in range(TRIALS)]
    errors = torch.stack([(y - x).square().sum() / x.square().sum() for y in rounds])
    mean, slack = float(errors.mean()), 5 * float(errors.std()) / sqrt(TRIALS) + 1e-12
    assert compressor.contraction is not None or compressor.variance is not None or "qsgd" in name
    if compressor.contraction is not None:
        assert 0 < compressor.contraction <= 1
        assert mean <= 1 - compressor.contraction + slack
    if compressor.variance is not None:
        assert mean <= compressor.variance + slack
        deviation = (torch.stack(rounds).mean(dim=0) - x).square().sum() / x.square().sum()
        assert deviation <= 3 * max(mean, 1e-12) / TRIALS
    if name.startswith(("random-k", "sketch")) and "natural" not in name:
        stated = compressor.variance if compressor.contraction is None else 1 - compressor.contraction
        assert mean == pytest.approx(stated, rel=0.15), "of these the bound is what happens"


LAYOUT_1500 = [
    LAYOUT[0]._replace(shape=(30, 40)),
    LAYOUT[1]._replace(shape=(50,), start=1200),
    LAYOUT[1]._replace(shape=(10, 25), start=1250),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [name for name in ENTRIES if made(name, SIZE).linear])
def test_the_mean_of_a_linear_ones_messages_is_the_message_of_the_mean(name: str, dtype: torch.dtype) -> None:
    compressor = made(name, SIZE, dtype)
    vectors = [drawn(SIZE, dtype, seed) for seed in range(3)]
    keys = [KEY._replace(node=node) for node in range(3)]
    messages = [compressor.encode(x, compressor.message(), key) for x, key in zip(vectors, keys, strict=True)]
    mean = torch.stack([compressor.numbers(message) for message in messages]).mean(dim=0)
    compressor.numbers(messages[0]).copy_(mean)
    expected = decoded(compressor, torch.stack(vectors).mean(dim=0))
    found = compressor.decode(messages[0], torch.empty(SIZE, dtype=dtype), keys[0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_linear_one_is_linear_between_nodes_and_others_are_not(name: str) -> None:
    compressor = made(name, SIZE, torch.float64)
    x, y = drawn(SIZE, torch.float64, seed=1), drawn(SIZE, torch.float64, seed=2)
    ours, theirs, both = (decoded(compressor, v, KEY._replace(node=j)) for j, v in enumerate((x, y, x + y)))
    apart = (both - ours - theirs).abs().max()
    if compressor.linear:
        assert apart <= 1e-12
    elif name != "top-all":  # which leaves nothing out
        assert apart > 1e-6


@pytest.mark.parametrize("name", ENTRIES)
def test_randomness_is_of_the_key_alone(name: str) -> None:
    """The same message from the same key, in any order; another round's is another; a shared choice is all nodes'."""
    compressor, x = made(name, SIZE), drawn(SIZE)
    by_key = {
        (round, node): decoded(compressor, x, Key(1, round, node)) for round, node in ((0, 0), (5, 0), (5, 1), (0, 1))
    }
    for (round, node), once in reversed(by_key.items()):
        assert same_bits(decoded(compressor, x, Key(1, round, node)), once)
    is_random = name in RANDOM
    assert is_random != torch.equal(by_key[0, 0], by_key[5, 0])
    is_shared = compressor.linear or not is_random
    assert is_shared == torch.equal(by_key[5, 0], by_key[5, 1])
    assert is_random != torch.equal(decoded(compressor, x, Key(2, 0, 0)), by_key[0, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, SIZE])
@pytest.mark.parametrize("name", ENTRIES)
def test_a_zero_vector_comes_back_as_zeros(name: str, size: int, dtype: torch.dtype) -> None:
    compressor = made(name, size, dtype)
    memory = compressor.memory(KEY)
    for zero in (torch.zeros(size, dtype=dtype), torch.full((size,), -0.0, dtype=dtype)):
        message = compressor.encode(zero, compressor.message(), KEY, memory)
        assert torch.equal(compressor.decode(message, torch.ones(size, dtype=dtype), KEY), zero)
    x = torch.arange(1, size + 1, dtype=dtype)  # and nothing has become zero forever
    sent = compressor.decode(compressor.encode(x, compressor.message(), KEY, memory), torch.empty_like(x), KEY)
    assert sent.abs().sum() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [-40, 30])
@pytest.mark.parametrize("name", ENTRIES)
def test_tiny_and_huge_numbers_keep_the_promise(name: str, power: int, dtype: torch.dtype) -> None:
    """1e-40 is subnormal in float32, 1e30 has a square beyond it: no error larger than the vector's, and no NaN."""
    compressor, x = made(name, SIZE, dtype), drawn(SIZE, torch.float64).mul(10.0**power).to(dtype)
    if "fp16" in name and power > 0:
        with pytest.raises(DivergedError, match="too large to be sent"):
            decoded(compressor, x)
        return
    if power < 0 and "natural" in name and dtype == torch.float32:  # between subnormals its steps are not of 2
        assert set(decoded(compressor, x).abs().tolist()) <= {0.0, float(np.finfo(np.float32).tiny)}
        return
    error = (decoded(compressor, x).double() - x.double()).norm() / x.double().norm()
    bound = sqrt(1.0 if compressor.contraction is not None else 10 * (compressor.variance or 100.0))
    assert error <= bound * 1.0001


@pytest.mark.parametrize(("where", "wrong"), [(0, float("nan")), (SIZE - 1, -float("inf"))])
@pytest.mark.parametrize("name", ENTRIES)
def test_what_is_not_finite_is_refused_with_node_round_and_count(name: str, where: int, wrong: float) -> None:
    compressor, x, h = made(name, SIZE), drawn(SIZE), torch.zeros(SIZE)
    x[where] = x[2000] = wrong
    told = f"node 3 diverged in round 17: 2 of the {SIZE} numbers"
    for encode in (
        lambda: compressor.encode(x, compressor.message(), KEY),
        lambda: compressor.encode_difference(x, h, compressor.message(), KEY),
        lambda: compressor.encode_residual(x.clone(), compressor.message(), KEY),
    ):
        with pytest.raises(DivergedError, match=told):
            encode()


@pytest.mark.parametrize("name", ENTRIES)
def test_a_message_may_lie_anywhere_and_a_dry_run_has_none(name: str) -> None:
    """A frame's payload begins wherever the frame was put; the passes read words of eight bytes."""
    compressor, x = made(name, SIZE), drawn(SIZE)
    message = compressor.encode(x, compressor.message(), KEY)
    room = torch.zeros(compressor.bytes + 3, dtype=torch.uint8)
    room[3:] = message
    assert torch.equal(compressor.decode(room[3:], torch.empty(SIZE), KEY), decoded(compressor, x))
    elsewhere = torch.zeros(compressor.bytes + 5, dtype=torch.uint8)
    compressor.encode(x, elsewhere[5:], KEY)
    assert torch.equal(elsewhere[5:], message)
    meta = x.to("meta")
    empty = compressor.message("meta")
    compressor.add(meta, {1: 0.5}, {1: compressor.encode(meta, empty, KEY)}, KEY)
    assert (empty.is_meta, empty.nbytes) == (True, compressor.bytes)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_vector_of_another_space_is_refused(name: str) -> None:
    compressor = made(name, 64)
    for x in (torch.zeros(65), torch.zeros(64, dtype=torch.float64), torch.zeros(128)[::2]):
        if "16" not in name or (x.dtype == torch.float32 and x.is_contiguous()):
            with pytest.raises(ValueError, match="was made for"):
                compressor.encode(x, compressor.message(), KEY)
    with pytest.raises(MalformedMessageError, match="a message of"):
        compressor.decode(torch.zeros(compressor.bytes + 1, dtype=torch.uint8), torch.zeros(64), KEY)


def test_writes_are_seen_by_torch() -> None:
    """numba writes past torch, whose count of writes tells whoever watches a posted payload."""
    compressor, x, h = made("top-k", SIZE), drawn(SIZE), torch.zeros(SIZE)
    message = compressor.message()
    before = (h._version, message._version, x._version)
    compressor.encode_difference(x, h, message, KEY)
    assert h._version > before[0]
    assert message._version > before[1]
    assert x._version == before[2]
    after = h._version
    compressor.add(h, {0: 1.0}, {0: message}, KEY)
    assert h._version > after


def test_a_compressor_of_another_kind_would_not_pass() -> None:
    """The battery's own trial: sign with torch.sign's zero at the sender, as a published code has it."""
    compressor: Compressor = made("sign", 65)
    x, own, copy = torch.zeros(65), torch.zeros(65), torch.zeros(65)
    x[3] = 2.0
    message = compressor.encode(x, compressor.message(), KEY)
    own += torch.sign(x) * (x.abs().sum() / 65)
    compressor.add(copy, {0: 1.0}, {0: message}, KEY)
    assert not same_bits(own, copy)
