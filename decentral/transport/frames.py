"""The frame around each message: a fixed header of our own, then the payload's bytes.

gloo and NCCL check neither length nor dtype nor which round a message belongs to, and a message longer than the posted
buffer kills its receiver. So sizes come from the receiver's own payload, never from the wire, and the header says what
the sender believes it sent; both must agree.
"""

from struct import Struct
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor

from decentral.peer import Payload

MAGIC = b"dctl"
VERSION = 1
HEADER_BYTES = 64
_ALIGNMENT = 8

_FIELDS = Struct("<QIIQQIQ")
_HEAD = Struct("<4sHxxI")


class FrameError(Exception):
    """A frame that is not what its receiver waits for; the text says which field, found and expected."""


class Stamp(NamedTuple):
    """What both ends of a link must agree on for one message."""

    run: int  # 64-bit digest of the experiment
    epoch: int  # incarnation of the link
    sender: int
    round: int
    sequence: int  # how many exchanges the sender began in this round before
    signature: int  # CRC of the payload's shapes and dtypes
    payload_bytes: int

    @property
    def frame_bytes(self) -> int:
        """Of the message, header included."""
        return HEADER_BYTES + self.payload_bytes

    def pack(self) -> bytes:
        """The 64 header bytes: magic, version, checksum of the fields, the fields, padding."""
        fields = _FIELDS.pack(*self)
        return (_HEAD.pack(MAGIC, VERSION, crc32(fields)) + fields).ljust(HEADER_BYTES, b"\0")


def check_header(header: bytes, expected: Stamp) -> None:
    """Compare 64 received header bytes with the stamp that is waited for.

    Raises:
        FrameError: not a frame, torn, or not the expected one; names the first field that differs.
    """
    check_fields(read_header(header), expected)


def read_header(header: bytes) -> Stamp:
    """What 64 received header bytes say.

    Raises:
        FrameError: not a frame, or torn.
    """
    magic, version, checksum = _HEAD.unpack_from(header)
    fields = header[_HEAD.size : _HEAD.size + _FIELDS.size]
    if magic != MAGIC:
        raise FrameError(f"no frame: it begins with {magic!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise FrameError(f"frame version {version}, expected {VERSION}; install the same decentral on every node")
    if crc32(fields) != checksum:
        raise FrameError("a torn header: its checksum does not match")
    return Stamp(*_FIELDS.unpack(fields))


def check_fields(found: Stamp, expected: Stamp) -> None:
    """Raise FrameError for the first field that differs."""
    for name, value, wanted in zip(Stamp._fields, found, expected, strict=True):
        if value != wanted:
            raise FrameError(f"{name.replace('_', ' ')} {value}, expected {wanted}")


def signature(payload: Payload) -> int:
    """A CRC of the payload's shapes and dtypes."""
    return crc32(repr([(tuple(tensor.shape), str(tensor.dtype)) for tensor in payload]).encode())


def padded(nbytes: int) -> int:
    """The bytes that a tensor takes in a frame."""
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def payload_bytes(payload: Payload) -> int:
    """The bytes of a payload in a frame, header not counted."""
    return sum(padded(tensor.nbytes) for tensor in payload)


def payload_views(frame: Tensor, like: Payload) -> Payload:
    """The payload inside a frame, as views with the shapes and dtypes of `like`."""
    views, start = [], HEADER_BYTES
    for tensor in like:
        views.append(frame[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += padded(tensor.nbytes)
    return tuple(views)


def fill(frame: Tensor, stamp: Stamp, payload: Payload) -> None:
    """Write header and payload into a frame; what lies there already stays."""
    frame[:HEADER_BYTES] = torch.frombuffer(bytearray(stamp.pack()), dtype=torch.uint8)
    for view, tensor in zip(payload_views(frame, payload), payload, strict=True):
        if view.data_ptr() != tensor.data_ptr():
            view.copy_(tensor)
