"""Links between neighbors on one host: a frame is written once, and every neighbor reads it where it lies.

A node keeps its outgoing frames in slots, each an anonymous shared memory file of its own (memfd). What passes over an
edge is a token of a few bytes on a Unix socket that says which slot is filled, and with the first token for a slot its
file descriptor. An end that sends no frame in an exchange sends an empty token, so that neither gets more than one
exchange ahead of the other, whose memory then stays bounded. The kernel wakes the waiting end, closes the socket of a
process that dies, and frees the memory once nobody has it: no name is left behind, whoever is killed when.
"""

import fcntl
import mmap
import os
import secrets
import socket
import sys
from contextlib import suppress
from functools import partial
from struct import Struct
from time import monotonic
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from decentral.transport.frames import HEADER_BYTES, padded
from decentral.transport.links import CLOSED, NO_ANSWER, BrokenLinkError, Finish, Link, Outbox

FLAGS_BYTES = 1 << 12
"""What a slot begins with: one byte for each reader, 1 once it has read the frame. A page, so frames are aligned."""

_TOKEN = Struct("<IIQ")  # slot, the reader's flag, bytes of the frame
_EMPTY = _TOKEN.pack(0, 0, 0)
_KEPT = 4
"""Frames that a neighbor may keep where nobody waits for it: one it looks at, one it has not, and two under way."""
_HELLO = Struct("<16sI")  # the secret, the caller's node
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW if sys.platform == "linux" else 0


def locality() -> str | None:
    """A text that two processes share exactly if they can be linked by shared memory; None where this one cannot.

    They need one kernel, one network namespace (in which the sockets' names live), and one user.
    """
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return None
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot:
            return f"{boot.read().strip()}/{os.stat('/proc/self/ns/net').st_ino}/{os.getuid()}"
    except OSError:
        return None


class _Slot:
    """One outgoing frame in shared memory."""

    def __init__(self, number: int, size: int, name: str) -> None:
        self.number = number
        self.file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.file, FLAGS_BYTES + size)
        fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, _SEALS)
        self.flags, self.frame = _mapped(self.file, size)
        self.readers: list[int] = []  # flags of those who were sent the frame
        self.taken = True

    @property
    def is_free(self) -> bool:
        return not self.taken and all(self.flags[reader] for reader in self.readers)

    def take(self) -> Tensor:
        self.flags[self.readers] = 0
        self.readers.clear()
        self.taken = True
        return self.frame


def _mapped(file: int, size: int) -> tuple[Tensor, Tensor]:
    """A slot's flags and its frame of `size` bytes."""
    memory = mmap.mmap(file, FLAGS_BYTES + size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    return whole[:FLAGS_BYTES], whole[FLAGS_BYTES:]


class SharedOutbox(Outbox):
    """A node's outgoing frames in slots that its neighbors map.

    Args:
        name: of the memory files, as /proc/PID/maps and the like show them.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._slots: list[_Slot] = []
        self._by_address: dict[int, _Slot] = {}

    def take(self, size: int) -> Tensor:
        for slot in self._slots:
            if slot.frame.numel() == size and slot.is_free:
                return slot.take()
        slot = _Slot(len(self._slots), size, self._name)
        self._slots.append(slot)
        self._by_address[slot.frame.data_ptr()] = slot
        return slot.frame

    def home(self, x: Tensor) -> Tensor | None:
        slot = self._by_address.get(x.data_ptr() - HEADER_BYTES)
        return slot.frame if slot is not None and slot.frame.numel() == HEADER_BYTES + padded(x.nbytes) else None

    def give_back(self, frame: Tensor) -> None:
        self.slot_of(frame).taken = False

    def slot_of(self, frame: Tensor) -> _Slot:
        """The slot that holds a frame of this outbox."""
        return self._by_address[frame.data_ptr()]

    def kept_by(self, reader: int) -> int:
        """How many of the frames that it was sent a neighbor has not given back."""
        return sum(reader in slot.readers and not slot.flags[reader] for slot in self._slots)

    def close(self) -> None:
        for slot in self._slots:
            os.close(slot.file)
        self._slots.clear()
        self._by_address.clear()


class SharedLink(Link):
    """One edge within a host.

    Args:
        connection: a connected SEQPACKET Unix socket to the neighbor.
        outbox: the node's own.
        reader: which flag of our slots the neighbor sets; each neighbor has its own.
    """

    name = "shared memory"

    def __init__(self, connection: socket.socket, outbox: SharedOutbox, reader: int) -> None:
        assert reader < FLAGS_BYTES, reader
        self._connection, self._outbox, self._reader = connection, outbox, reader
        self._known: set[int] = set()  # our slots whose descriptor the neighbor has
        self._slots: dict[int, tuple[Tensor, Tensor]] = {}  # the neighbor's slots: flags and frame
        self._lent: dict[int, Tensor] = {}  # by a frame's address, the flag to set when it was read
        self._arrived: dict[int, Tensor | None] = {}  # by exchange, what nobody has waited for yet
        self._started, self._taken = 0, 0  # exchanges so far, and tokens

    def start(self, outgoing: Tensor | None, incoming: int, overlapped: bool) -> Finish:  # noqa: ARG002  nothing has to be moved along
        try:
            if outgoing is None:
                self._connection.send(_EMPTY)
            else:
                self._tell(outgoing)
        except OSError as error:
            raise BrokenLinkError(_told(error)) from error
        self._started += 1
        return partial(self._finish, self._started - 1, incoming)

    def _tell(self, outgoing: Tensor) -> None:
        slot = self._outbox.slot_of(outgoing)
        token = _TOKEN.pack(slot.number, self._reader, outgoing.numel())
        if slot.number in self._known:
            self._connection.send(token)
        else:
            socket.send_fds(self._connection, [token], [slot.file])
            self._known.add(slot.number)
        slot.readers.append(self._reader)

    def send(self, frame: Tensor) -> None:
        try:
            self._tell(frame)
        except OSError as error:
            raise BrokenLinkError(_told(error)) from error

    def has_room(self) -> bool:
        return self._outbox.kept_by(self._reader) < _KEPT

    def next(self, size: int) -> Tensor:
        frame = self._next(None)
        if frame is None or frame.numel() > size:
            raise BrokenLinkError(f"it sent {frame.numel() if frame is not None else 0} bytes for a letter of {size}")
        return frame

    def _finish(self, exchange: int, incoming: int, timeout_s: float) -> Tensor | None:
        deadline = monotonic() + timeout_s
        while exchange not in self._arrived:
            self._arrived[self._taken] = self._next(max(deadline - monotonic(), 1e-3))
            self._taken += 1
        frame = self._arrived.pop(exchange)
        if (frame is not None) != (incoming > 0):
            due = f"{incoming} bytes" if incoming else "nothing"
            raise BrokenLinkError(f"it sent {frame.numel() if frame is not None else 0} bytes where {due} was due")
        return frame

    def _next(self, timeout_s: float | None) -> Tensor | None:
        try:
            self._connection.settimeout(timeout_s)
            token, files, _, _ = self._received()
        except OSError as error:
            raise BrokenLinkError(_told(error)) from error
        if len(token) < _TOKEN.size:
            raise BrokenLinkError(CLOSED)
        number, reader, size = _TOKEN.unpack(token)
        if not size:
            return None
        for file in files:
            self._slots[number] = self._sealed(file, size)
        flags, frame = self._slots[number]
        self._lent[frame.data_ptr()] = flags[reader : reader + 1]
        return frame

    def _received(self) -> tuple[bytes, list[int], int, Any]:
        while True:
            try:
                return socket.recv_fds(self._connection, _TOKEN.size, 1)
            except ConnectionResetError:  # told once, where it died before it read all; what it sent is still there
                continue

    @staticmethod
    def _sealed(file: int, size: int) -> tuple[Tensor, Tensor]:
        """The flags and frame of a slot that its owner can no longer shrink: reading past its end would be fatal."""
        try:
            if fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS != _SEALS or os.fstat(file).st_size != FLAGS_BYTES + size:
                raise BrokenLinkError("a memory file that is not sealed, or not of the size it should have")
            return _mapped(file, size)
        finally:
            os.close(file)

    def release(self, frame: Tensor) -> None:
        self._lent.pop(frame.data_ptr()).fill_(1)

    def close(self) -> None:
        with suppress(OSError):  # the neighbor has gone; a reader of ours that sleeps in it wakes
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        self._slots.clear()
        self._lent.clear()
        self._arrived.clear()


def _told(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    if isinstance(error, BrokenPipeError | ConnectionError) or error.errno == 9:
        return CLOSED
    return error.strerror or str(error)


class Meeting:
    """Where a node waits for neighbors of its host: a socket of the abstract namespace, which has no file."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)
        self._name = f"decentral-{uuid4().hex}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(f"\0{self._name}")
        self._listener.listen(socket.SOMAXCONN)

    @property
    def address(self) -> str:
        """What a neighbor must know to call here."""
        return f"{self._name}:{self._secret.hex()}"

    @staticmethod
    def call(address: str, node: int) -> socket.socket:
        """A connection to the node that waits at an address, as the neighbor `node`.

        Raises:
            OSError: nobody waits there.
        """
        name, _, secret = address.partition(":")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(f"\0{name}")
            connection.send(_HELLO.pack(bytes.fromhex(secret), node))
        except OSError:
            connection.close()
            raise
        return connection

    def answer(self, timeout_s: float) -> tuple[int, socket.socket]:
        """The next neighbor that calls, and the connection to it; whoever does not know the secret is turned away.

        Raises:
            TimeoutError: nobody called.
        """
        deadline = monotonic() + timeout_s
        while True:
            self._listener.settimeout(max(deadline - monotonic(), 1e-3))
            connection, _ = self._listener.accept()
            connection.settimeout(max(deadline - monotonic(), 1e-3))
            hello = connection.recv(_HELLO.size)
            if len(hello) == _HELLO.size:
                secret, node = _HELLO.unpack(hello)
                if secrets.compare_digest(secret, self._secret):
                    return node, connection
            connection.close()

    def close(self) -> None:
        self._listener.close()
