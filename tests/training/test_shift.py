"""Each node sees its samples in its own fixed way, whatever it holds; test samples stay as they are unless asked."""

from pathlib import Path

import pytest
import torch
import yaml

from decentral import config
from decentral.errors import ConfigError
from decentral.loading import load
from decentral.training.shift import SHIFTS, Shift, _rotated, shift_of, view_of
from decentral.training.task import task

IMAGES = config.ImageShift(name="images", rotation=40, contrast=0.5, brightness=0.5, noise=0.3)
AFFINE = config.AffineShift(name="affine", scale=0.3, offset=1.0)

DIGITS = {
    "nodes": 4,
    "rounds": 1,
    "data": "digits",
    "model": {"name": "mlp", "hidden": [4]},
    "algorithm": "dsgd",
    "topology": "ring",
    "dtype": "float64",
}


def digits(folder: Path, **sections):
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(DIGITS | sections))
    return load(path).experiment


def images(count=5, side=(8, 8)):
    return torch.randn(count, 2, *side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_every_shift_is_tested():
    assert {IMAGES.name, AFFINE.name} == SHIFTS.keys()


@pytest.mark.parametrize("section", [IMAGES, AFFINE], ids=["images", "affine"])
def test_node_and_seed_decide_and_nothing_else(section):
    x = images()
    shift = Shift(section, seed=3)
    seen = shift.training(x, 2)
    assert torch.equal(seen, Shift(section, seed=3).training(x.clone(), 2))
    for other in (shift.training(x, 1), Shift(section, seed=4).training(x, 2), x):
        assert not torch.allclose(seen, other)
    assert torch.equal(x, images())  # what is shifted is not written to
    assert seen.dtype == x.dtype


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_right_angles_turn_an_image_counterclockwise(degrees):
    x = images()
    torch.testing.assert_close(_rotated(x, degrees), torch.rot90(x, degrees // 90, (2, 3)))


def test_a_rotation_keeps_lengths_in_an_image_that_is_not_square():
    """In the grid's coordinates both sides have length 2, so that turning them without their ratio would shear."""
    x = torch.zeros(1, 1, 21, 41)
    x[0, 0, 10, 30] = 1  # 10 to the right of the middle
    seen = _rotated(x, 90)[0, 0]
    assert divmod(int(seen.argmax()), 41) == (0, 20)  # 10 above it


def test_contrast_and_brightness_by_hand():
    section = config.ImageShift(name="images", contrast=0.5, brightness=2.0)
    view, x = view_of(section, 1, 0), images()
    torch.testing.assert_close(Shift(section, 0).training(x, 1), view.contrast * x + view.brightness)
    assert (view.degrees, view.noise) == (0, 0)
    drawn = [view_of(section, node, 0) for node in range(400)]
    assert 0.5 <= min(v.contrast for v in drawn) < 0.6 < 1.4 < max(v.contrast for v in drawn) <= 1.5
    assert -2 <= min(v.brightness for v in drawn) < -1.8 < 1.8 < max(v.brightness for v in drawn) <= 2


def test_noise_has_the_nodes_deviation_and_is_another_for_each_sample():
    section = config.ImageShift(name="images", noise=2.0)
    x = torch.zeros(50, 1, 16, 16)
    seen = Shift(section, 0).training(x, 3)
    assert seen.std() == pytest.approx(view_of(section, 3, 0).noise, rel=0.05)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen, Shift(section, 0).test(x, 3))


def test_an_affine_shift_is_one_scale_and_one_offset_for_each_feature():
    x = torch.randn(6, 3, dtype=torch.float64)
    shift = Shift(AFFINE, 0)
    offset = shift.training(torch.zeros(1, 3, dtype=torch.float64), 1)
    scale = shift.training(torch.ones(1, 3, dtype=torch.float64), 1) - offset
    torch.testing.assert_close(shift.training(x, 1), scale * x + offset)
    assert (scale > 0).all()
    assert len(set(scale.flatten().tolist())) == 3


@pytest.mark.parametrize("partition", ["iid", {"name": "dirichlet", "alpha": 0.5}, "power-law"])
def test_a_shift_goes_with_every_partition(tmp_path, partition):
    plain = task(digits(tmp_path, partition=partition), 0)
    shifted = task(digits(tmp_path, partition=partition, shift={"name": "images", "rotation": 30, "noise": 0.2}), 0)
    for node in range(4):
        assert torch.equal(plain.shards[node], shifted.shards[node])
        inputs, targets = plain.samples(node)
        assert torch.equal(shifted.samples(node)[0], shifted.shift.training(inputs, node))
        assert torch.equal(shifted.samples(node)[1], targets)
        assert torch.equal(shifted.batches(node)._inputs, shifted.samples(node)[0])
        chosen = torch.tensor([3, 1])
        assert torch.equal(shifted.samples(node, chosen)[0], shifted.samples(node)[0][chosen])
        assert shifted.test_inputs(node) is None
    assert torch.equal(plain.data.test_inputs, shifted.data.test_inputs)


def test_nodes_are_tested_on_their_own_view_only_where_that_is_asked(tmp_path):
    asked = task(digits(tmp_path, shift={"name": "affine", "offset": 1.0, "test": True}), 0)
    assert torch.equal(asked.test_inputs(1), asked.shift.test(asked.data.test_inputs, 1))
    assert not torch.equal(asked.test_inputs(1), asked.test_inputs(2))


@pytest.mark.parametrize(
    ("section", "shape", "dtype", "message"),
    [
        (
            IMAGES,
            (64,),
            torch.float32,
            r"found samples of shape \(64,\); it needs \(channels, height, width\): use affine",
        ),
        (AFFINE, (64,), torch.int64, r"shift 'affine' moves numbers, but the inputs are torch.int64; remove shift"),
    ],
)
def test_samples_that_cannot_be_shifted_are_refused(section, shape, dtype, message):
    with pytest.raises(ConfigError, match=message):
        shift_of(section, shape, dtype, 0)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"shift": "images"}, "shift: shifts nothing; required: at least one of rotation, contrast, brightness, noise"),
        ({"shift": {"name": "affine", "test": True}}, "shift: shifts nothing; required: at least one of scale, offset"),
        (
            {"shift": {"name": "affine", "scale": 1}, "data": "quadratics", "model": "linear"},
            "shift: quadratics differ between nodes by zeta2, about a known optimum; remove shift",
        ),
        ({"shift": {"name": "images", "rotation": 270}}, "shift.rotation: found 270; required: .*at most 180"),
    ],
)
def test_a_shift_that_makes_no_sense_is_refused_with_its_place(tmp_path, sections, message):
    with pytest.raises(ConfigError, match=message):
        digits(tmp_path, **sections)
