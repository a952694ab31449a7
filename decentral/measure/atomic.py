"""Write a file so that a reader finds the old one or the new one, whole, and so that it outlives a power cut."""

import os
from pathlib import Path
from socket import gethostname


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside the file, flush to the disk, and rename; nothing is left behind on a failure."""
    temporary = path.with_name(f".{path.name}.{gethostname()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_durably(path: Path, content: bytes) -> None:
    """`write_atomically`, and the new name is on the disk too when this returns."""
    write_atomically(path, content)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
