"""Every node starts from the same weights; shapes fit the samples; the user's own model is checked."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from decentral import config
from decentral.errors import ConfigError
from decentral.training.models import MODELS, build

SECTIONS = {
    "linear": config.Linear(name="linear"),
    "mlp": config.MLP(name="mlp", hidden=[8, 4]),
    "cnn": config.CNN(name="cnn", channels=4),
    "gru": config.GRU(name="gru", width=8),
    "gpt": config.GPT(name="gpt", width=8, heads=2),
}
LANGUAGE = ("gru", "gpt")

OWN = """
import torch
from torch import nn

def small(width: int = 3):
    return nn.Linear(2, width)

def normed():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2))

def frozen():
    return nn.Linear(2, 3).requires_grad_(False)

def empty():
    return nn.ReLU()

def lazy():
    return nn.LazyLinear(3)

def number():
    return 7

def broken():
    raise RuntimeError("no such layer")
"""


@pytest.fixture
def own(tmp_path, request):
    """The module under a name of its own, since imports are remembered."""
    name = "own_model_" + "".join(character if character.isalnum() else "_" for character in request.node.name)
    (tmp_path / f"{name}.py").write_text(OWN)

    def make(function, **options):
        return build(config.OwnCode(name=f"{name}:{function}", **options), (2,), 3, 0, torch.float32, tmp_path)

    return make


def made(name, shape=None, outputs=10, seed=0, dtype=torch.float32):
    shape = ((12,) if name in LANGUAGE else (1, 8, 8)) if shape is None else shape
    return build(SECTIONS[name], shape, outputs, seed, dtype, Path())


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_every_model_is_tested():
    assert SECTIONS.keys() | {config.OWN} == MODELS.keys()


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_have_one_row_per_sample(name, dtype):
    inputs = torch.arange(60).view(5, 12) % 10 if name in LANGUAGE else torch.randn(5, 1, 8, 8, dtype=dtype)
    outputs = made(name, dtype=dtype)(inputs)
    assert outputs.shape == ((5, 12, 10) if name in LANGUAGE else (5, 10))
    assert outputs.dtype == dtype


@pytest.mark.parametrize("name", SECTIONS)
def test_the_seed_decides_the_weights(name):
    assert torch.equal(weights(made(name)), weights(made(name)))
    assert not torch.equal(weights(made(name)), weights(made(name, seed=1)))
    assert torch.equal(weights(made(name)).double(), weights(made(name, dtype=torch.float64)))


def test_nodes_as_threads_start_from_the_same_weights():
    """torch's generator is one per process: without a lock, threads that build at once draw from each other's."""
    with ThreadPoolExecutor(8) as pool:
        built = list(pool.map(lambda _: weights(made("mlp")), range(64)))
    assert all(torch.equal(one, built[0]) for one in built)


def test_building_leaves_the_process_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made("cnn")
    assert torch.equal(torch.rand(3), expected)


def test_linear_without_bias_has_one_weight_per_feature():
    model = build(config.Linear(name="linear", bias=False), (6,), 1, 0, torch.float64, Path())
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(1, 6)]


def test_mlp_without_hidden_layers_is_linear():
    model = build(config.MLP(name="mlp", hidden=[]), (6,), 2, 0, torch.float32, Path())
    assert torch.equal(weights(model), weights(build(config.Linear(name="linear"), (6,), 2, 0, torch.float32, Path())))


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 32, 32), (2, 7, 5)])
def test_cnn_takes_any_image_of_at_least_four_by_four(shape):
    assert made("cnn", shape, outputs=3)(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 3, 8), (1, 8, 3)])
def test_cnn_refuses_what_is_no_image(shape):
    with pytest.raises(ConfigError, match=r"model 'cnn' found samples of shape .* at least 4 x 4: use model mlp"):
        made("cnn", shape)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_samples_without_features_are_refused(name):
    with pytest.raises(ConfigError, match=r"inputs of shape \(samples,\); it needs \(samples, features\)"):
        made(name, ())


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_language_model_refuses_images(name):
    with pytest.raises(ConfigError, match=rf"model '{name}' found samples of shape \(1, 8, 8\); it needs \(context,\)"):
        made(name, (1, 8, 8))


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="3 heads cannot share a width of 8; width must be a multiple") as caught:
        build(config.GPT(name="gpt", width=8, heads=3), (4,), 5, 0, torch.float32, Path())
    assert caught.value.at == ("heads",)


def test_own_model_gets_its_options_and_the_seed(own):
    model = own("small", width=5)
    assert model.weight.shape == (5, 2)
    assert torch.equal(weights(model), weights(own("small", width=5)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", r":number returned int; it must return a torch.nn.Module"),
        ("frozen", r":frozen returned a Linear with no trainable parameter"),
        ("empty", r":empty returned a ReLU with no trainable parameter"),
        ("lazy", r":lazy returned a LazyLinear with lazy parameters"),
        ("broken", r"broken failed: .*RuntimeError: no such layer"),
        ("smal", r"no function 'smal'; did you mean 'small'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_faulty_own_model_is_told_in_one_line(own, function, message):
    with pytest.raises(ConfigError, match=message) as caught:
        own(function)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_of_an_own_model_is_refused(own):
    with pytest.raises(ConfigError, match="unknown key; did you mean 'width'"):
        own("small", widht=5)


def test_batch_norm_is_warned_about_once(own):
    with pytest.warns(UserWarning, match="running statistics are not averaged, .* prefer GroupNorm") as caught:
        own("normed")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made("cnn")
    assert any(isinstance(module, nn.GroupNorm) for module in made("cnn").modules())
