"""Data of every source comes in one shape; quadratics keep their promises; the user's own data is checked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import mse_loss

from decentral import config
from decentral.errors import ConfigError
from decentral.training.data import LOADERS, half_mean_squared_error, load


def quadratics(nodes=4, seed=0, dtype=torch.float64, **fields):
    return load(config.Quadratics(name="quadratics", **fields), nodes, seed, Path(), dtype)


def gradients(data, x):
    """Of each node's f_i at x, by automatic differentiation through the samples and the loss: `(nodes, d)`."""
    rows = []
    for shard in data.shards:
        at = x.clone().requires_grad_()
        data.loss(data.train_inputs[shard] @ at.unsqueeze(1), data.train_targets[shard]).backward()
        rows.append(at.grad)
    return torch.stack(rows)


def matrices(data):
    """Each node's A_i."""
    return [data.train_inputs[shard] / len(shard) ** 0.5 for shard in data.shards]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 9), st.integers(1, 12), st.floats(0.01, 1), st.floats(1, 50), st.floats(1e-3, 10), st.integers(0, 99)
)
def test_gradients_at_the_optimum_have_mean_zero_and_mean_square_zeta2(nodes, d, mu, smoothness, zeta2, seed):
    data = quadratics(nodes, seed, dimension=d, mu=mu, smoothness=smoothness, zeta2=zeta2)
    at_optimum = gradients(data, data.optimum)
    assert at_optimum.mean(dim=0).abs().max() < 1e-12
    assert at_optimum.square().sum(dim=1).mean() == pytest.approx(zeta2, rel=1e-9)
    assert data.optimum.norm() == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(2, 12), st.floats(0.01, 1), st.floats(1, 50), st.integers(0, 99))
def test_curvatures_span_mu_to_smoothness(nodes, d, mu, smoothness, seed):
    for matrix in matrices(quadratics(nodes, seed, dimension=d, mu=mu, smoothness=smoothness)):
        eigenvalues = torch.linalg.eigvalsh(matrix.T @ matrix)
        expected = torch.linspace(mu, smoothness, d, dtype=torch.float64)
        torch.testing.assert_close(eigenvalues, expected, rtol=1e-9, atol=1e-9)


def test_no_point_has_a_lower_loss_than_the_optimum():
    data = quadratics(5, zeta2=2.0)
    solution = torch.linalg.lstsq(data.train_inputs, data.train_targets.unsqueeze(1)).solution.squeeze(1)
    torch.testing.assert_close(solution, data.optimum)

    def loss(x):
        return data.loss(data.train_inputs @ x.unsqueeze(1), data.train_targets)

    directions = torch.randn(20, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert all(loss(data.optimum + 1e-3 * direction) > loss(data.optimum) for direction in directions)


def test_samples_of_a_node_give_its_objective():
    data = quadratics(3, dimension=6)
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)
    for matrix, shard in zip(matrices(data), data.shards, strict=True):
        residual = matrix @ x - data.train_targets[shard] / 6**0.5
        loss = data.loss(data.train_inputs[shard] @ x.unsqueeze(1), data.train_targets[shard])
        assert loss == pytest.approx(float(residual.square().sum() / 2))


@pytest.mark.parametrize(("nodes", "zeta2"), [(1, 0.5), (4, 0.0)])
def test_without_heterogeneity_every_node_has_the_same_optimum(nodes, zeta2):
    data = quadratics(nodes, zeta2=zeta2)
    assert gradients(data, data.optimum).abs().max() < 1e-12


def test_quadratics_have_the_shapes_of_data():
    data = quadratics(3, dimension=5, dtype=torch.float32)
    assert data.sample_shape == (5,)
    assert (data.classes, data.outputs) == (None, 1)
    assert [shard.tolist() for shard in data.shards] == [list(range(5)), list(range(5, 10)), list(range(10, 15))]
    assert {data.train_inputs.dtype, data.train_targets.dtype, data.optimum.dtype} == {torch.float32}
    assert torch.equal(data.train_inputs, data.test_inputs)


def test_quadratics_follow_the_seed():
    assert torch.equal(quadratics(seed=1).train_targets, quadratics(seed=1).train_targets)
    assert not torch.equal(quadratics(seed=1).train_inputs, quadratics(seed=2).train_inputs)
    first, second, *_ = matrices(quadratics())
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("fields", "key", "message"),
    [
        ({"mu": 2.0, "smoothness": 1.0}, "mu", "mu is 2 and smoothness 1; mu must not exceed smoothness"),
        ({"dimension": 100_000}, "dimension", "4 matrices of 100000 x 100000 .* lower dimension or nodes"),
    ],
)
def test_impossible_quadratics_are_refused(fields, key, message):
    with pytest.raises(ConfigError, match=message) as caught:
        quadratics(**fields)
    assert caught.value.at == (key,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (7,), (33,), (4097,), (5, 3)], ids=str)
def test_half_mean_squared_error_and_its_gradient_are_those_of_torch_to_the_bit(shape, dtype):
    random = torch.Generator().manual_seed(1)
    targets = torch.randn(shape, generator=random).to(dtype)
    outputs = torch.randn(shape if len(shape) > 1 else (*shape, 1), generator=random).to(dtype).requires_grad_()
    losses = half_mean_squared_error(outputs, targets), mse_loss(outputs.reshape(shape), targets) / 2
    assert torch.equal(*losses)
    assert torch.equal(*(torch.autograd.grad(loss, outputs)[0] for loss in losses))


def test_half_mean_squared_error_takes_a_column_for_a_vector():
    outputs, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0])
    assert half_mean_squared_error(outputs, targets) == (1 + 4) / 4


OWN = """
import numpy as np
import torch
from decentral.training.data import Data, half_mean_squared_error as half

X, Y, V = np.ones((6, 2)), np.arange(6) % 3, np.linspace(0, 1, 6)

def classes(count: int = 6):
    return X[:count], Y[:count].astype(np.int32), X, Y.astype(">i4")
def values(): return torch.ones(6, 2), torch.arange(6.0).view(6, 1), torch.ones(2, 2), torch.zeros(2, 1)
def backward(): return X[::-1], V[::-1], X.astype(">f8"), V
def origins(count: int = 6):
    x, v = torch.from_numpy(X), torch.from_numpy(V)
    return Data(x, v, x, v, half, None, origins=torch.arange(count) % 2)
def data(nodes: int = 2):
    x, v = torch.from_numpy(X), torch.from_numpy(V)
    return Data(x, v, x, v, half, None, shards=tuple(torch.arange(6).chunk(nodes)), optimum=torch.zeros(2))
def tokens(): return torch.arange(12).view(6, 2), Y, torch.arange(12).view(6, 2), Y

def nothing(): return None
def three(): return X, Y, X
def listed(): return [[1.0]], Y, X, Y
def objects(): return X.astype(object), Y, X, Y
def complexes(): return X + 1j, Y, X, Y
def empty(): return X[:0], Y[:0], X, Y
def scalar(): return X, torch.tensor(3), X, Y
def unequal(): return X, Y[:5], X, Y
def nan(): return X, V * np.nan, X, V
def too_large(): return X * 1e300, V, X, V
def negative(): return X, Y - 1, X, Y
def columns(): return X, Y.reshape(6, 1), X, Y.reshape(6, 1)
def shapes(): return X, Y, np.ones((6, 3)), Y
def kinds(): return X, Y, X, V
def above(): return Data(*map(torch.from_numpy, (X, Y, X, Y)), torch.nn.functional.cross_entropy, classes=2)
def floating(): return Data(*map(torch.from_numpy, (X, V, X, V)), torch.nn.functional.cross_entropy, classes=2)
def shard_type():
    x, v = torch.from_numpy(X), torch.from_numpy(V)
    return Data(x, v, x, v, half, None, shards=(torch.arange(6), torch.ones(2)))
def shard_range():
    x, v = torch.from_numpy(X), torch.from_numpy(V)
    return Data(x, v, x, v, half, None, shards=(torch.arange(6), torch.arange(1, 7)))
def raising(): raise FileNotFoundError("no images here")
"""


@pytest.fixture
def own(tmp_path, request):
    """The module under a name of its own, since imports are remembered."""
    name = "own_data_" + "".join(character if character.isalnum() else "_" for character in request.node.name)
    (tmp_path / f"{name}.py").write_text(OWN)

    def make(function, nodes=2, dtype=torch.float32, **options):
        return load(config.OwnCode(name=f"{name}:{function}", **options), nodes, 0, tmp_path, dtype)

    return make


def test_own_integer_targets_are_classes(own):
    data = own("classes", count=5)
    assert data.train_inputs.shape == (5, 2)
    assert (data.classes, data.outputs) == (3, 3)
    assert data.train_targets.dtype == data.test_targets.dtype == torch.int64
    assert data.train_inputs.dtype == torch.float32
    assert data.loss(torch.zeros(5, 3), data.train_targets) == pytest.approx(np.log(3))


def test_own_floating_targets_are_regression(own):
    data = own("values", dtype=torch.float64)
    assert (data.classes, data.outputs) == (None, 1)
    assert data.train_targets.dtype == torch.float64
    assert data.loss(torch.zeros(6, 1), data.train_targets) == pytest.approx(np.mean(np.arange(6) ** 2) / 2)


def test_own_arrays_of_any_memory_order_are_taken(own):
    data = own("backward", dtype=torch.float64)
    assert data.train_targets.tolist() == np.linspace(0, 1, 6)[::-1].tolist()
    assert torch.equal(data.test_inputs, torch.ones(6, 2, dtype=torch.float64))


def test_own_integer_inputs_stay_integers(own):
    assert own("tokens").train_inputs.dtype == torch.int64


def test_own_data_keeps_its_loss_shards_and_optimum(own):
    data = own("data", nodes=2)
    assert data.loss.__name__ == "half_mean_squared_error"
    assert [shard.tolist() for shard in data.shards] == [[0, 1, 2], [3, 4, 5]]
    assert {data.train_inputs.dtype, data.optimum.dtype} == {torch.float32}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", r"returned NoneType; it must return a decentral Data or the tuple \(train_inputs, "),
        ("three", r"returned tuple of 3; it must return"),
        ("listed", r"returned train_inputs as list; it must be a tensor or NumPy array of real numbers"),
        ("objects", r"returned train_inputs as ndarray of object; it must be"),
        ("complexes", r"returned train_inputs as ndarray of complex128; it must be"),
        ("empty", r"returned train_inputs of shape \(0, 2\); it must hold at least one sample"),
        ("scalar", r"returned train_targets of shape \(\); it must hold at least one sample"),
        ("unequal", r"returned 6 train_inputs and 5 train_targets; they must be equally many"),
        ("nan", r"returned train_targets with NaN or infinity in torch.float32; every number must be finite"),
        ("too_large", r"returned train_inputs with NaN or infinity in torch.float32"),
        ("negative", r"returned target -1; class targets must be 0 or more"),
        (
            "columns",
            r"returned targets of torch.int64 and shape \(6, 1\); class targets must be one integer per sample",
        ),
        (
            "shapes",
            r"returned train_inputs .* shape \(6, 2\) and test_inputs .* shape \(6, 3\); both must be of one kind",
        ),
        (
            "kinds",
            r"returned train_targets of torch.int64 .* test_targets of torch.float32 .*; both must be of one kind",
        ),
        ("above", r"returned target 2; with 2 classes the targets must lie in 0..1"),
        ("floating", r"returned targets of torch.float32 .*; class targets must be one integer per sample"),
        ("shard_type", r"returned shard 1 of torch.float32 .*; it must be a list of int64 indices"),
        ("shard_range", r"returned shard 1 with indices from 1 to 6 of 6 samples"),
        ("raising", r"raising failed: .*FileNotFoundError: no images here"),
        ("clases", r"no function 'clases'; did you mean 'classes'"),
    ],
)
def test_faulty_own_data_is_told_in_one_line(own, function, message):
    with pytest.raises(ConfigError, match=message) as caught:
        own(function)
    assert function in str(caught.value)
    assert "\n" not in str(caught.value)


def test_own_origins_must_be_one_per_sample(own):
    assert own("origins").origins.tolist() == [0, 1, 0, 1, 0, 1]
    with pytest.raises(
        ConfigError, match=r"returned origins of torch.int64 and shape \(5,\); .* for each of 6 training"
    ):
        own("origins", count=5)


def test_own_shards_must_be_one_per_node(own):
    with pytest.raises(ConfigError, match="returned 2 shards; it must return one for each of the 3 nodes"):
        own("data", nodes=3)


def test_options_of_own_data_are_checked(own):
    with pytest.raises(ConfigError, match="unknown key; did you mean 'count'") as caught:
        own("classes", cuont=5)
    assert caught.value.at == ("cuont",)


def test_every_source_is_tested():
    assert LOADERS.keys() == {"digits", "mnist", "cifar10", "quadratics", "pydoc-topics", config.OWN}
