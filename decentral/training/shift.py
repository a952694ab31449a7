"""Feature shift: each node sees the samples that it holds through a fixed transformation of its own.

images  x <- c_i R(theta_i) x + b_i + sigma_i e, where theta_i, c_i, b_i and sigma_i are drawn for node i, R rotates
        about the middle (bilinear, the border goes on), and e is normal, drawn once for each sample.
affine  x <- exp(s_i) x + t_i, with s_i and t_i drawn for node i and each feature.

All of it is a function of (seed, node), and which samples a node holds does not matter to it: any partition goes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from decentral import config
from decentral.errors import ConfigError
from decentral.seeding import stream


class View(NamedTuple):
    """How one node sees images."""

    degrees: float
    contrast: float  # a factor
    brightness: float  # an addend
    noise: float  # a standard deviation


@dataclass(frozen=True)
class Shift:
    """The transformations of all nodes.

    Attributes:
        section: what they may be.
        seed: the run's, from which they are drawn.
    """

    section: config.ImageShift | config.AffineShift
    seed: int

    def training(self, inputs: Tensor, node: int) -> Tensor:
        """A node's own training inputs `(N_i, *sample_shape)`, all of them, as it sees them."""
        return self._seen(inputs, node, "training noise")

    def test(self, inputs: Tensor, node: int) -> Tensor:
        """The test inputs `(M, *sample_shape)` as a node sees them."""
        return self._seen(inputs, node, "test noise")

    def told(self, node: int) -> str:
        """How a node sees its samples, in words."""
        if isinstance(self.section, config.AffineShift):
            return f"features scaled by exp({self.section.scale:g} e), moved by {self.section.offset:g} e"
        view = view_of(self.section, node, self.seed)
        words = {
            "rotation": f"rotated by {view.degrees:.0f}°",
            "contrast": f"contrast {view.contrast:.2f}",
            "brightness": f"brightness {view.brightness:+.2f}",
            "noise": f"noise {view.noise:.2f}",
        }
        return ", ".join(text for key, text in words.items() if getattr(self.section, key))

    def _seen(self, inputs: Tensor, node: int, purpose: str) -> Tensor:
        seen: Tensor = SHIFTS[self.section.name](self.section, inputs, node, self.seed, purpose)
        return seen


def shift_of(
    section: config.Shift | None, sample_shape: tuple[int, ...], dtype: torch.dtype, seed: int
) -> Shift | None:
    """The shift of a section; None where there is none.

    Raises:
        ConfigError: such samples cannot be shifted so.
    """
    if section is None:
        return None
    if not dtype.is_floating_point:
        raise ConfigError(
            f"shift {section.name!r} moves numbers, but the inputs are {dtype}; remove shift", section.path
        )
    if isinstance(section, config.ImageShift) and len(sample_shape) != 3:
        raise ConfigError(
            f"shift 'images' found samples of shape {sample_shape}; it needs (channels, height, width): use affine",
            section.path,
        )
    return Shift(section, seed)


def view_of(section: config.ImageShift, node: int, seed: int) -> View:
    """What is drawn for a node."""
    rng = stream(seed, node, "shift")
    angle, factor, addend, deviation = rng.uniform([-1, -1, -1, 0], 1)
    return View(
        section.rotation * angle, 1 + section.contrast * factor, section.brightness * addend, section.noise * deviation
    )


def _image(section: config.ImageShift, inputs: Tensor, node: int, seed: int, purpose: str) -> Tensor:
    view = view_of(section, node, seed)
    seen = _rotated(inputs, view.degrees) if section.rotation else inputs
    seen = seen * view.contrast + view.brightness
    if section.noise:
        noise = stream(seed, node, purpose).standard_normal(tuple(inputs.shape), dtype=np.float32)
        seen += torch.from_numpy(noise).to(seen) * view.noise
    return seen


def _rotated(images: Tensor, degrees: float) -> Tensor:
    """Images `(N, C, H, W)` rotated about their middle by an angle, counterclockwise."""
    height, width = images.shape[-2:]
    c, s = cos(radians(degrees)), sin(radians(degrees))
    # The grid's coordinates go from -1 to 1 along either side, whatever its length.
    turn = torch.tensor([[c, -s * height / width, 0], [s * width / height, c, 0]], dtype=images.dtype)
    grid = affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid.to(images.device), padding_mode="border", align_corners=False)


def _affine(section: config.AffineShift, inputs: Tensor, node: int, seed: int, _purpose: str) -> Tensor:
    rng = stream(seed, node, "shift")
    s, t = (torch.from_numpy(rng.standard_normal(tuple(inputs.shape[1:]))).to(inputs) for _ in range(2))
    return inputs * (section.scale * s).exp() + section.offset * t


SHIFTS: dict[str, Callable[[Any, Tensor, int, int, str], Tensor]] = {"images": _image, "affine": _affine}
