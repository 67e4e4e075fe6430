"""A model comes from the zoo or from a user's function, the same one every time."""

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.models import MODELS, build, layout

MINE = """
from torch import nn

NUMBER = 5

def everything(input_shape, in_features, num_classes):
    assert input_shape == (in_features,)
    return nn.Linear(in_features, num_classes)

def classes(num_classes, hidden=7):
    return nn.Sequential(nn.LazyLinear(hidden), nn.Linear(hidden, num_classes))

def nothing():
    return nn.Linear(3, 2)

def gathering(*args, num_classes, **more):
    assert not args and not more
    return nn.Linear(3, num_classes)

class Tagger(nn.Module):
    def __init__(self, in_features, num_classes):
        super().__init__()
        self.linear = nn.Linear(in_features, num_classes)

    def forward(self, x):
        return self.linear(x)

def failing(in_features):
    raise ValueError("no such width")

def text():
    return "a model"

def demanding(in_features, temperature, *, depth):
    return nn.Linear(in_features, 2)
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path / 'mine.py'}"


def shape_of(name):
    return (16,) if MODELS[name].layout == "features" else (1, 8, 8)


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_of_the_zoo_is_built_with_weights_that_its_seed_decides(name):
    state = torch.get_rng_state()
    model = build(name, shape_of(name), 5)
    torch.rand(3)
    assert model.eval()(torch.zeros(2, *shape_of(name))).shape == (2, 5)
    assert same(model, build(name, shape_of(name), 5))
    assert not same(model, build(name, shape_of(name), 5, seed=1))
    torch.set_rng_state(state)
    build(name, shape_of(name), 5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("function", ["everything", "nothing", "gathering", "Tagger", "classes"])
def test_a_function_gets_those_of_the_arguments_that_it_takes(mine, function):
    model = build(f"{mine}:{function}", (3,), 2)
    assert isinstance(model, nn.Module)
    assert model(torch.zeros(4, 3)).shape == (4, 2)


def test_a_functions_weights_are_decided_by_the_seed_too(mine):
    reference = f"{mine}:Tagger"
    assert same(build(reference, (3,), 2), build(reference, (3,), 2))
    assert not same(build(reference, (3,), 2), build(reference, (3,), 2, seed=1))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("failing", r"the function raised ValueError: no such width \(.*mine\.py:failing\)"),
        ("text", r"returned no model.*found 'str'; allowed: nn\.Module"),
        ("NUMBER", r"not a function \(.*mine\.py:NUMBER\): found 5"),
        ("demanding", r"not offered.*found \['temperature', 'depth'\]; allowed: input_shape, in_features, num_cl"),
        ("taggr", r"found 'taggr'.*did you mean 'Tagger'"),
    ],
)
def test_a_function_that_gives_no_model_is_refused_by_name(mine, function, message):
    with pytest.raises(BadInput, match=message):
        build(f"{mine}:{function}", (3,), 2)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no such file.*gone\.py"):
        build(f"{tmp_path}/gone.py:net", (3,), 2)


def test_an_unknown_model_lists_the_zoo_and_the_other_way():
    with pytest.raises(BadInput, match=r"unknown model \(model\.name\).*path/to/file\.py:function.*'jsc-tiny'\?"):
        build("jsc-tny", (16,), 5)


def test_the_layout_is_the_models_own_or_open():
    assert layout("jsc-tiny") == "features"
    assert layout("digits-cnn") == "image"
    assert layout("any/file.py:function") is None
