"""The cost model against cases worked out by hand: with a frame of 956 kB, a link of 8 Mbit/s is busy for a second."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.measure.cost import Link, Machine, Setting, buckets, predict, predict_ddp
from decentral.transport.dry import Exchanged, Gathered, Reduced, Round

S = 956_000  # bytes of a frame, and of the model
MIB = 1 << 20
FAST = Machine(memory_bytes_s=1e30, loopback_bytes_s=1e30)
BETWEEN_HOSTS = Setting(4, S, compute_s=0.5, machine=FAST, link=Link(8e6, latency_s=0.25))
ONE_HOST = Setting(4, S, 0.5, Machine(memory_bytes_s=S, loopback_bytes_s=2 * S, spare_core=False))


def gossip(neighbors: int, behind: int | None = 0) -> Round:
    return Round(1, [Exchanged(neighbors, neighbors, S, 1, behind)])


@pytest.mark.parametrize(("neighbors", "wire_s"), [(1, 1), (2, 2), (3, 3)], ids=["matching", "ring", "hub of a star"])
def test_the_wire_carries_one_message_after_the_other(neighbors: int, wire_s: float) -> None:
    cost = predict([[gossip(neighbors)]], BETWEEN_HOSTS)
    assert (cost.compute_s, cost.latency_s, cost.hidden_s) == (0.5, 0.25, 0)
    assert cost.wire_s == pytest.approx(wire_s)
    assert cost.step_s == pytest.approx(0.5 + wire_s + 0.25)
    assert cost.efficiency == pytest.approx(0.5 / cost.step_s)


@pytest.mark.parametrize(
    ("receivers", "sources", "wire_s", "touched"),
    [(1, 3, 3, 2 + 3 + 2), (3, 1, 3, 2 + 1 + 2), (2, 0, 2, 2 + 2), (0, 2, 2, 2 + 2), (0, 0, 0, 0)],
)
def test_the_busier_direction_counts_and_memory_by_what_is_made_and_read(
    receivers: int, sources: int, wire_s: float, touched: float
) -> None:
    did = Round(1, [Exchanged(receivers, sources, S, int(receivers > 0), 0)])
    assert predict([[did]], BETWEEN_HOSTS).wire_s == pytest.approx(wire_s)
    assert predict([[did]], ONE_HOST).mixing_s == pytest.approx(touched)


@pytest.mark.parametrize(
    ("compute_s", "hidden_s"), [(0.5, 0.5), (2.0, 1.25)], ids=["all of the gradient", "all of the exchange"]
)
@pytest.mark.parametrize("behind", [1, None])
def test_what_an_exchange_and_a_gradient_have_in_common_is_hidden(
    compute_s: float, hidden_s: float, behind: int | None
) -> None:
    cost = predict([[gossip(1, behind)]], replace(BETWEEN_HOSTS, compute_s=compute_s))
    assert cost.hidden_s == pytest.approx(hidden_s)
    assert cost.step_s == pytest.approx(max(compute_s, 1.25))


def test_copying_takes_its_time_from_the_computation_where_no_core_is_free() -> None:
    """A quarter of the wire's second is copying: it ends when the exchange does, or computation and copying."""
    machine = Machine(memory_bytes_s=1e30, loopback_bytes_s=4 * S, spare_core=False)
    for compute_s, step_s in ((0.5, 1.25), (1.5, 1.75)):
        setting = replace(BETWEEN_HOSTS, machine=machine, compute_s=compute_s)
        assert predict([[gossip(1, behind=1)]], setting).step_s == pytest.approx(step_s)


@pytest.mark.parametrize(
    ("carried", "wire_s", "step_s"), [(1.0, 1.0, 1.25), (0.95, 1 / 0.95, 0.25 + 1 / 0.95), (0.5, 2.0, 2.25)]
)
def test_what_all_hosts_at_once_were_seen_to_carry_counts(carried: float, wire_s: float, step_s: float) -> None:
    """Of half the rate the cores were the limit: they have nothing left to compute with meanwhile."""
    machine = Machine(memory_bytes_s=1e30, loopback_bytes_s=4 * S, spare_core=False)
    link = Link(8e6, latency_s=0.25, carried_bytes_s=carried * S)
    cost = predict([[gossip(1, behind=1)]], replace(BETWEEN_HOSTS, link=link, machine=machine))
    assert cost.wire_s == pytest.approx(wire_s)
    assert cost.step_s == pytest.approx(step_s + (0.25 if carried == 0.5 else 0.0))


@pytest.mark.parametrize(("latency_s", "waited_s"), [(0.02, 0.0), (0.25, 6 * (2.9 * 0.25 - 0.125))])
def test_all_reduce_sends_three_halves_of_the_vector_in_six_hops(latency_s: float, waited_s: float) -> None:
    """A quarter of the vector is on the wire in a hop, for 0.25 s, and half of that is sent while one waits."""
    cost = predict([[Round(1, reductions=[Reduced(S, 4)])]], replace(BETWEEN_HOSTS, link=Link(8e6, latency_s)))
    assert cost.wire_s == pytest.approx(1.5)
    assert cost.latency_s == pytest.approx(waited_s)
    assert cost.hidden_s == 0


def test_on_one_host_neighbors_read_in_place_and_all_reduce_copies() -> None:
    """In vectors, at one a second: a frame is read and written, each neighbor's read, the model read and written."""
    cost = predict([[gossip(2)]], ONE_HOST)
    assert (cost.wire_s, cost.latency_s, cost.mixing_s) == (0, 0, pytest.approx(2 + 2 + 2))
    reduced = predict([[Round(1, reductions=[Reduced(S, 4)])]], ONE_HOST)
    assert (reduced.wire_s, reduced.mixing_s) == (pytest.approx(1.5 / 2), pytest.approx(4 + 3 * 0.75))
    by_loopback = predict([[gossip(2, behind=1)]], replace(ONE_HOST, shares_memory=False))
    assert (by_loopback.wire_s, by_loopback.hidden_s) == (pytest.approx(1.0), 0)


@pytest.mark.parametrize(("latency_s", "waited_s"), [(0.1, 0.0), (0.5, 3 * (2.9 * 0.5 - 0.5))])
def test_a_gather_sends_every_message_in_three_hops(latency_s: float, waited_s: float) -> None:
    """In a hop a whole frame is on the wire, for a second. It is written and read, sent on, and the model added to."""
    did = [[Round(1, gathers=[Gathered(S, 4)])]]
    cost = predict(did, replace(BETWEEN_HOSTS, link=Link(8e6, latency_s)))
    assert (cost.wire_s, cost.latency_s, cost.hidden_s) == (pytest.approx(3.0), pytest.approx(waited_s), 0)
    here = predict(did, ONE_HOST)
    assert (here.wire_s, here.latency_s, here.mixing_s) == (pytest.approx(1.5), 0, pytest.approx(2 + 4 * 4 + 2))


def test_one_node_has_nobody_to_talk_to() -> None:
    alone = replace(BETWEEN_HOSTS, nodes=1)
    assert predict([[Round(1, reductions=[Reduced(S, 1)])]], alone).communication_s == 0
    assert predict([[Round(1, gathers=[Gathered(S, 1)])]], alone).wire_s == 0
    assert predict([[Round(1)]], alone).efficiency == 1
    assert predict_ddp([S], alone).step_s == 0.5
    assert predict([[Round()]], alone).efficiency == 1  # a round that does nothing


def test_in_each_round_the_slowest_node_counts() -> None:
    """Two nodes that take turns in talking: the others wait for whoever talks."""
    cost = predict([[gossip(1), Round(1)], [Round(1), gossip(1)]], BETWEEN_HOSTS)
    assert cost.step_s == pytest.approx(1.75)
    local_steps = predict([[Round(1), gossip(1)]], BETWEEN_HOSTS)
    assert local_steps.step_s == pytest.approx((0.5 + 1.75) / 2)


@pytest.mark.parametrize(
    ("mib", "closed"),
    [
        ([0.25, 0.5], [0.75]),  # all in one, which never fills
        ([8, 0.5, 0.25], [8.75]),  # the first is open until 1 MiB is full
        ([19, 19, 0.1], [19.1, 19]),
        ([4, 10, 20, 2], [2, 30, 4]),  # a bucket closes once it holds 25 MiB
    ],
)
def test_buckets_are_filled_as_the_backward_pass_goes(mib: list[float], closed: list[float]) -> None:
    assert buckets([round(size * MIB) for size in mib]) == [pytest.approx(size * MIB, abs=1) for size in closed]


def test_ddp_hides_the_first_bucket_behind_the_rest_of_the_backward_pass() -> None:
    """12 s of compute, 8 of them backward: bucket 1 is ready after 4 s and takes 3 (1.5 x 2 MB at 1 MB/s), bucket 2
    is ready after 8 and takes 3, all of it exposed."""
    link = Link(8e6 / 0.956)
    setting = Setting(4, 4_000_000, 12.0, FAST, link)
    cost = predict_ddp([2_000_000, 2_000_000], setting)
    assert (cost.wire_s, cost.hidden_s, cost.step_s) == pytest.approx((6.0, 3.0, 15.0))
    busy = predict_ddp([2_000_000, 2_000_000], replace(setting, machine=replace(FAST, spare_core=False), link=None))
    assert busy.hidden_s == 0


def test_ddp_reduces_two_buckets_at_a_time() -> None:
    """The second begins while the first still waits for its answers: the longer one ends last."""
    link = Link(8e6 / 0.956, latency_s=1.0)
    setting = Setting(4, 4_000_000, 1e-9, FAST, link)
    first, second = 6 * (0.75 + 2.9 - 0.375), 6 * (0.25 + 2.9 - 0.125)
    cost = predict_ddp([1_000_000, 3_000_000], setting)
    assert cost.step_s == pytest.approx(max(first, second))
    assert cost.wire_s == pytest.approx(6.0)


ROUNDS = st.builds(
    Round,
    gradients=st.integers(0, 3),
    exchanges=st.lists(
        st.builds(
            Exchanged,
            receivers=st.integers(0, 9),
            sources=st.integers(0, 9),
            frame_bytes=st.integers(64, 10**8),
            messages=st.integers(0, 2),
            behind=st.none() | st.integers(0, 2),
        ),
        max_size=3,
    ),
    reductions=st.lists(st.builds(Reduced, st.integers(4, 10**8), st.integers(1, 50)), max_size=2),
)
SETTINGS = st.builds(
    Setting,
    nodes=st.integers(1, 50),
    model_bytes=st.integers(4, 10**8),
    compute_s=st.floats(1e-4, 10),
    machine=st.builds(Machine, st.floats(1e8, 1e12), st.floats(1e8, 1e11), st.booleans()),
    link=st.builds(Link, st.floats(1e4, 1e11), st.floats(0, 1)),
)


@given(did=st.lists(ROUNDS, min_size=1, max_size=4), setting=SETTINGS, faster=st.floats(1, 100))
def test_a_better_link_never_makes_a_step_longer(did: list[Round], setting: Setting, faster: float) -> None:
    assert setting.link is not None
    assert setting.link.rate_bit_s is not None
    tensors = [max(sum(one.bytes_sent for one in did), 4)]
    quicker = replace(setting, link=replace(setting.link, rate_bit_s=setting.link.rate_bit_s * faster))
    nearer = replace(setting, link=replace(setting.link, latency_s=setting.link.latency_s / faster))
    for cost in (lambda where: predict([did], where), lambda where: predict_ddp(tensors, where)):
        now = cost(setting)
        assert now.step_s >= now.compute_s * (1 - 1e-12)
        assert 0 <= now.hidden_s <= min(now.communication_s, now.compute_s) * (1 + 1e-9)
        for better in (quicker, nearer):
            assert cost(better).step_s <= now.step_s * (1 + 1e-9)
