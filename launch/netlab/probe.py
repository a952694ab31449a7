"""What a lab's links really do, by plain TCP: the rate in each direction, alone and both at once, and a round trip."""

import json
import socket
import subprocess
import sys
from statistics import median
from threading import Thread
from time import monotonic, sleep
from typing import Any

from faults import LabError
from lab import PROGRAM, Lab

_PORT = 29500
_LISTENER, _CALLER = 0, 1
_ROUND_TRIPS = 50
_WARM_UP = 0.25  # of the time: slow start, and what a link may send at once after a pause
_PATIENCE_S = 20.0
_CHUNK = 1 << 16


def measure(lab: Lab, seconds: float) -> dict[str, Any]:
    """Measures between the first two hosts.

    Raises:
        LabError: the probes could not reach each other.
    """
    address = lab.names.address(_LISTENER)
    probes = [_start(lab, _LISTENER, "listen", seconds), _start(lab, _CALLER, address, seconds)]
    patience_s = 4 * seconds + 3 * _PATIENCE_S
    try:
        ends = [probe.communicate(timeout=patience_s) for probe in probes]
    except subprocess.TimeoutExpired as error:
        raise LabError(f"the hosts could not measure their link within {patience_s:.0f} s") from error
    said = " / ".join(err.decode().strip().splitlines()[-1] for _, err in ends if err.strip())
    if any(probe.returncode for probe in probes):
        raise LabError(f"the hosts could not measure their link: {said}")
    there, back = (json.loads(out) for out, _ in ends)
    trips = sorted(back["round_trips_s"])
    return {
        "link": lab.link.as_dict(lab.names.hosts),
        "switch": "router" if lab.link.routed else "bridge",
        "tcp_forward_bit_s": there["alone_bit_s"],  # from host 1 to host 0
        "tcp_backward_bit_s": back["alone_bit_s"],
        "tcp_both_bit_s": [there["both_bit_s"], back["both_bit_s"]],
        "round_trip_s": {"min": trips[0], "median": median(trips), "max": trips[-1]},
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The measurement, for people."""
    mbit = [found["tcp_forward_bit_s"] / 1e6, found["tcp_backward_bit_s"] / 1e6]
    both = [value / 1e6 for value in found["tcp_both_bit_s"]]
    trip = {name: 1e3 * value for name, value in found["round_trip_s"].items()}
    return [
        f"TCP, one direction at a time: {mbit[0]:.1f} and {mbit[1]:.1f} Mbit/s",
        f"TCP, both at once: {both[0]:.1f} and {both[1]:.1f} Mbit/s",
        f"round trip: {trip['median']:.3f} ms (median; {trip['min']:.3f} to {trip['max']:.3f})",
    ]


def _start(lab: Lab, host: int, role: str, seconds: float) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(PROGRAM), "probe", role, str(seconds)]
    return lab.names.popen(host, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def main(role: str, seconds: float) -> int:
    """One end of a measurement, on its host; writes what it found as JSON."""
    found: dict[str, Any] = {}
    if role == "listen":
        with socket.create_server(("", _PORT)) as server:
            server.settimeout(_PATIENCE_S)
            caller = server.accept()[0]
    else:
        caller = _called(role)
    with caller:
        caller.settimeout(_PATIENCE_S + seconds)
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found["round_trips_s"] = [_round_trip(caller, role == "listen") for _ in range(_ROUND_TRIPS)]
        for sender in ("call", "listen"):
            if (role == "listen") == (sender == "listen"):
                _send(caller, seconds)
                caller.recv(1)
            else:
                found["alone_bit_s"] = _receive(caller, seconds)
                caller.send(b"!")
        sending = Thread(target=_send, args=(caller, seconds))
        sending.start()
        found["both_bit_s"] = _receive(caller, seconds)
        sending.join()
    sys.stdout.write(json.dumps(found))
    return 0


def _called(address: str) -> socket.socket:
    end = monotonic() + _PATIENCE_S
    while True:
        try:
            return socket.create_connection((address, _PORT), timeout=_PATIENCE_S)
        except ConnectionRefusedError:  # the listener is not up yet
            if monotonic() > end:
                raise
            sleep(0.02)


def _round_trip(other: socket.socket, answers: bool) -> float:
    begin = monotonic()
    if answers:
        other.recv(1)
        other.send(b".")
    else:
        other.send(b".")
        other.recv(1)
    return monotonic() - begin


def _send(other: socket.socket, seconds: float) -> None:
    """Sends for so long: a byte 0 before each chunk that follows another, at last a byte 1."""
    end, chunk, last = monotonic() + seconds, bytes(_CHUNK), b"\1" + bytes(_CHUNK - 1)
    while monotonic() < end:
        other.sendall(chunk)
    other.sendall(last)


def _receive(other: socket.socket, seconds: float) -> float:
    """Bits per second that arrive, not counting the warm-up."""
    begin, counted, first, now = monotonic(), 0, None, 0.0
    buffer = memoryview(bytearray(_CHUNK))
    while True:
        filled = 0
        while filled < _CHUNK:
            got = other.recv_into(buffer[filled:])
            if not got:
                raise ConnectionError("the other host has closed the connection")
            filled += got
            now = monotonic()
            if first is not None:
                counted += got
            elif now - begin > _WARM_UP * seconds:
                first = now
        if buffer[0]:
            return 8 * counted / (now - first) if first is not None and now > first else 0.0
