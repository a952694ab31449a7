"""The parts of the network lab that need no root: what its options mean, and what its router does with packets."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

import pytest

from tests.launch.conftest import netlab

Part = Callable[[str], ModuleType]


@pytest.mark.parametrize(
    ("text", "bits"), [("100mbit", 1e8), ("1gbit", 1e9), ("1.5Mbit", 1.5e6), ("64kbit", 64e3), ("8000bit", 8e3)]
)
def test_rates_are_bits_per_second(part: Part, text: str, bits: float) -> None:
    assert part("link").rate(text) == bits


@pytest.mark.parametrize("text", ["100", "100mbps", "100mb", "-1mbit", "mbit", "1kbit", "1e3mbit", "200gbit"])
def test_another_rate_is_refused_by_its_name(part: Part, text: str) -> None:
    """`tc` itself reads 100mbps as megabytes: an eightfold surprise."""
    with pytest.raises(part("faults").LabError, match=f"--rate {text}: ") as refused:
        part("link").rate(text)
    assert refused.value.code == 2


def test_times_and_shares_have_units(part: Part) -> None:
    link = part("link")
    assert link.duration("--latency", "10ms") == pytest.approx(0.01)
    assert link.duration("--latency", "0.5s") == 0.5
    assert link.share("0.1%") == pytest.approx(0.001)
    for read in (lambda: link.duration("--latency", "10"), lambda: link.share("0.1"), lambda: link.share("100%")):
        with pytest.raises(part("faults").LabError):
            read()


@pytest.mark.parametrize("text", ["3@20s+5s", "3@20s(+5s)"])
def test_a_cut_has_a_host_a_time_and_an_end(part: Part, text: str) -> None:
    cut = part("link").cut(text)
    assert (cut.host, cut.at_s, cut.for_s) == (3, 20.0, 5.0)
    assert [cut.pulled(at) for at in (19.9, 20.0, 24.9, 25.0)] == [False, True, True, False]
    assert part("link").cut("0@1s").pulled(1e9)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "--hosts", "1", "--", "true"], "--hosts 1: must be 2 to 250"),
        (["run", "--rate", "100mbit"], "nothing to run: give the command after --, as in `netlab run -- COMMAND`"),
        (["run", "--cut", "9@2s", "--", "true"], "--cut 9@...: there is no such host; they are 0 to 3"),
        (["run", "--jitter", "2ms", "--", "true"], "--jitter is larger than --latency; a packet cannot arrive before"),
        (["run", "--env", "A", "--", "true"], "--env A: must be NAME=VALUE"),
        (["fly"], "argument VERB: invalid choice: 'fly'"),
        (["enter", "host1", "true"], "`netlab enter` is for programs inside a lab"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else " ".join(value),
)
def test_bad_input_gets_one_line_and_exit_code_2(words: list[str], line: str) -> None:
    done = netlab(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert done.stderr.startswith(f"netlab: {line}")


@pytest.mark.parametrize("lacking", ["root", "ip", "tun"])
def test_what_the_machine_lacks_is_named_with_exit_code_3(
    part: Part, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    iproute = part("iproute")
    monkeypatch.setattr(iproute.os, "geteuid", lambda: 1000 if lacking == "root" else 0)
    monkeypatch.setattr(iproute.shutil, "which", lambda name, path: None if lacking == "ip" else name)
    monkeypatch.setattr(iproute, "TUN", "/dev/no-such-device")
    says = {"root": "needs root", "ip": "no program 'ip' here; .* install iproute2", "tun": "no /dev/no-such-device"}
    with pytest.raises(part("faults").LabError, match=says[lacking]) as refused:
        iproute.require(routed=True)
    assert refused.value.code == 3
    if lacking == "tun":
        iproute.require(routed=False)


def packet(sender: int, receiver: int, size: int, mark: int = 0) -> bytes:
    """An IPv4 packet as a TUN device gives it, behind the header that tells of offload."""
    header = bytearray(20)
    header[0], header[12:16] = 0x45, bytes([10, 77, 0, sender + 1])
    header[16:20] = bytes([10, 77, 0, receiver + 1])
    return bytes(10) + bytes(header) + mark.to_bytes(2, "big") + bytes(size - 22)


@contextmanager
def routed(part: Part, hosts: int, **link: object) -> Iterator[list[socket.socket]]:
    """The cables of some hosts, whose other ends a router holds."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(hosts)]
    inside, outside = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    for cable in inside:
        cable.setblocking(False)
    ends, starts = os.pipe()
    router = part("router").Router([cable.fileno() for cable in inside], part("link").Link(**link))
    thread = threading.Thread(target=router.run, args=(ends,))
    thread.start()
    os.write(starts, b"begin\n")
    for cable in outside:
        cable.settimeout(10)
    try:
        yield outside
    finally:
        os.close(starts)
        thread.join(10)
        assert not thread.is_alive()
        os.close(ends)
        for cable in (*inside, *outside):
            cable.close()


def test_a_packet_goes_to_the_host_that_it_is_for_and_no_sooner_than_the_latency(part: Part) -> None:
    with routed(part, 3, latency_s=0.05) as cables:
        began = time.monotonic()
        cables[0].send(packet(0, 2, 100, mark=7))
        cables[1].send(packet(1, 2, 100, mark=8))
        assert {cables[2].recv(2000)[30:32] for _ in range(2)} == {b"\0\7", b"\0\10"}
        assert time.monotonic() - began >= 0.05
        cables[1].setblocking(False)
        with pytest.raises(BlockingIOError):
            cables[1].recv(2000)


def test_a_rate_is_kept_and_the_order_too(part: Part) -> None:
    """5 packets of 986 + 14 bytes at 1 Mbit/s last 40 ms."""
    with routed(part, 2, rate_bit_s=1e6) as cables:
        began = time.monotonic()
        for mark in range(5):
            cables[0].send(packet(0, 1, 986, mark))
        assert [cables[1].recv(2000)[31] for _ in range(5)] == [0, 1, 2, 3, 4]
        assert time.monotonic() - began >= 0.04


def test_two_receivers_share_the_senders_link(part: Part) -> None:
    with routed(part, 3, rate_bit_s=1e6) as cables:
        began = time.monotonic()
        for mark in range(3):
            for receiver in (1, 2):
                cables[0].send(packet(0, receiver, 986, mark))
        for receiver in (1, 2):
            assert [cables[receiver].recv(2000)[31] for _ in range(3)] == [0, 1, 2]
        assert time.monotonic() - began >= 0.048


def test_two_senders_share_the_receivers_link(part: Part) -> None:
    with routed(part, 3, rate_bit_s=1e6) as cables:
        began = time.monotonic()
        for sender in (0, 1):
            for mark in range(3):
                cables[sender].send(packet(sender, 2, 986, mark))
        for _ in range(6):
            cables[2].recv(2000)
        assert time.monotonic() - began >= 0.048


def test_jitter_never_reorders(part: Part) -> None:
    with routed(part, 2, latency_s=0.005, jitter_s=0.005) as cables:
        for mark in range(100):
            cables[0].send(packet(0, 1, 60, mark))
        assert [cables[1].recv(2000)[31] for _ in range(100)] == list(range(100))


def test_loss_loses_its_share(part: Part) -> None:
    with routed(part, 2, loss=0.5) as cables:
        for mark in range(400):
            cables[0].send(packet(0, 1, 60, mark))
            time.sleep(0.0002)
        cables[1].settimeout(0.5)
        arrived = 0
        with suppress(TimeoutError):
            while cables[1].recv(2000):
                arrived += 1
    assert 150 < arrived < 250


def test_a_pulled_cable_is_silent_and_the_others_are_not(part: Part) -> None:
    cut = part("link").Cut(host=1, at_s=0.0)
    with routed(part, 3, cuts=(cut,)) as cables:
        time.sleep(0.05)
        cables[0].send(packet(0, 1, 60))
        cables[1].send(packet(1, 2, 60))
        cables[0].send(packet(0, 2, 60, mark=9))
        assert cables[2].recv(2000)[31] == 9
        for cable in cables[1:]:
            cable.settimeout(0.2)
            with pytest.raises(TimeoutError):
                cable.recv(2000)


def test_an_unsplit_segment_counts_as_the_frames_it_becomes(part: Part) -> None:
    """4344 bytes of data in segments of 1448, 52 bytes of headers and 14 of Ethernet on each: 3 x 1514."""
    offload = struct.pack("=BBHHHH", 1, 1, 52, 1448, 20, 16)
    assert part("router").wire_bytes(offload + bytes(52 + 4344)) == 3 * 1514
    assert part("router").wire_bytes(bytes(10) + bytes(100)) == 114
