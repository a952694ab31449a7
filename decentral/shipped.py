"""Files that come with the package but lie outside it in a checkout: `topologies/` and `launch/`."""

from pathlib import Path


def shipped(folder: str) -> Path:
    """A shipped folder: inside an installed wheel, else beside the package in a checkout."""
    package = Path(__file__).parent
    installed = package / "_shipped" / folder
    return installed if installed.is_dir() else package.parent / folder
