"""The switch of a lab whose links have latency, jitter, loss or cuts: a process that joins the hosts' TUN devices.

A packet leaves its sender's queue at the link's rate, travels for the latency (plus or minus the jitter), and enters
its receiver's link at the same rate, behind whatever still waits there. What would wait longer than the queue holds is
dropped. Packets are never reordered, so a late one holds up those behind it. Large segments of the kernel's offload
pass whole; where packets are to be lost, every one comes by itself, so that one loss is one packet.
"""

import ctypes
import gc
import heapq
import json
import os
import select
import struct
import sys
from contextlib import suppress
from fcntl import ioctl
from random import Random
from time import monotonic
from typing import Any

from faults import LabError
from link import Cut, Link
from names import INTERFACE

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x1000, 0x4000
_CHECKSUM, _SEGMENTS_IPV4 = 0x1, 0x2
_CLONE_NEWNET = 0x40000000
_OFFLOAD_HEADER = struct.Struct("=BBHHHH")  # virtio_net_hdr
_LARGEST = 65535 + _OFFLOAD_HEADER.size
_ETHERNET_BYTES = 14  # counted, so that a rate means what it means on the bridge
_QUEUE_S = 50e-3
_READ_AT_ONCE = 64
_PRIORITY = 1


def main(settings: str) -> int:
    """Makes the TUN devices, says `ready`, and carries packets until its standard input is closed."""
    told: dict[str, Any] = json.loads(settings)
    link = Link(**told["link"] | {"cuts": tuple(Cut(**cut) for cut in told["link"]["cuts"])})
    libc, home = ctypes.CDLL(None, use_errno=True), os.open("/proc/self/ns/net", os.O_RDONLY)
    tuns = [_tun(libc, namespace, whole=not link.loss) for namespace in told["namespaces"]]
    _enter(libc, home)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    _be_prompt()
    Router(tuns, link).run(sys.stdin.fileno())
    return 0


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _CLONE_NEWNET):
        raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")


def _tun(libc: ctypes.CDLL, namespace: str, whole: bool) -> int:
    """A TUN device in a namespace, as a descriptor; with `whole`, the kernel hands over unsplit segments."""
    place = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    _enter(libc, place)
    os.close(place)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
    if whole:
        ioctl(tun, _TUNSETOFFLOAD, _CHECKSUM | _SEGMENTS_IPV4)
    return tun


def _be_prompt() -> None:
    """A switch does not wait for a processor that training keeps busy."""
    gc.disable()
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PRIORITY))


class Router:
    """Carries packets between TUN devices; device i belongs to the host with the address 10.77.0.(i + 1)."""

    def __init__(self, tuns: list[int], link: Link) -> None:
        self._tuns, self._link = tuns, link
        self._random = Random(0)
        self._bytes_s = None if link.rate_bit_s is None else link.rate_bit_s / 8
        self._latency_s, self._jitter_s = link.latency_s or 0.0, link.jitter_s or 0.0
        self._loss, self._start = link.loss or 0.0, monotonic()
        self._sent_by = [0.0] * len(tuns)  # when a host's outgoing link is free again
        self._received_by = [0.0] * len(tuns)
        self._on_the_way: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def run(self, control: int) -> None:
        """Until the descriptor `control` ends; what comes through it starts the clock of the cuts."""
        tuns, waiting = self._tuns, self._on_the_way
        listened, hosts = [control, *tuns], {tun: host for host, tun in enumerate(tuns)}
        while True:
            patience = max(waiting[0][0] - monotonic(), 0.0) if waiting else None
            for ready in select.select(listened, (), (), patience)[0]:
                if ready != control:
                    self._read(hosts[ready], ready)
                elif os.read(control, 64):
                    self._start = monotonic()
                else:
                    return
            self._deliver()

    def _read(self, sender: int, tun: int) -> None:
        with suppress(BlockingIOError):
            for _ in range(_READ_AT_ONCE):
                self._take(sender, os.read(tun, _LARGEST))

    def _deliver(self) -> None:
        waiting, now = self._on_the_way, monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, receiver, packet = heapq.heappop(waiting)
            with suppress(OSError):  # the host's own queue is full, or its device is going away: a lost packet
                os.write(self._tuns[receiver], packet)

    def _take(self, sender: int, packet: bytes) -> None:
        """Decides when a packet arrives, if it does."""
        ip = _OFFLOAD_HEADER.size
        receiver = packet[ip + 19] - 1 if packet[ip] >> 4 == 4 else -1
        if not 0 <= receiver < len(self._tuns) or self._lost(sender, receiver):
            return
        now, delay = monotonic(), self._latency_s
        if self._jitter_s:
            delay += self._random.uniform(-self._jitter_s, self._jitter_s)
        lasts = wire_bytes(packet) / self._bytes_s if self._bytes_s else 0.0
        leaves = max(now, self._sent_by[sender])
        arrives, free = leaves + delay, self._received_by[receiver]
        if leaves - now > _QUEUE_S or (lasts and free - arrives > _QUEUE_S):
            return
        self._sent_by[sender] = leaves + lasts
        # The last byte is there when it was sent and traveled, and the receiver's link has carried all before it.
        self._received_by[receiver] = done = max(arrives, free) + lasts
        self._count += 1
        heapq.heappush(self._on_the_way, (done, self._count, receiver, packet))

    def _lost(self, sender: int, receiver: int) -> bool:
        if self._loss and self._random.random() < self._loss:
            return True
        now = monotonic() - self._start
        return any(cut.host in (sender, receiver) and cut.pulled(now) for cut in self._link.cuts)


def wire_bytes(packet: bytes) -> int:
    """What a packet is on the wire, once it is cut into frames, each with its headers."""
    kind, header, payload = _OFFLOAD_HEADER.unpack_from(packet)[1:4]
    size = len(packet) - _OFFLOAD_HEADER.size
    frames = -(-(size - header) // payload) if kind and payload else 1
    return int(size + (frames - 1) * header + frames * _ETHERNET_BYTES)
