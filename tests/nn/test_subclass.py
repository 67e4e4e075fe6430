"""A subclass that keeps the `forward` of its layer is quantised as the layer; what it overrides is honoured."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.graph import trace
from paretobit.models import load, save
from paretobit.nn import Quantized, TensorCache, instrument
from paretobit.passes.layers.choice import LayerChoice
from paretobit.passes.transform import QuantizeSettings, quantize
from paretobit.spaces import Quantize

WEIGHT, DATA = Integer(5, 3), Integer(6, 3)
ENTRY = {"weight": WEIGHT, "data_in": DATA}


class Three(nn.Conv2d):
    """The usual shorthand: only arguments are fixed."""

    def __init__(self, before, after):
        super().__init__(before, after, 3, padding=1)


class Padded(Three):
    """Another padding, in the method that `forward` calls."""

    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(F.pad(input, (1, 1, 1, 1), "replicate"), 2 * weight, bias)[..., 1:-1, 1:-1]


class Scaled(nn.Linear):
    """Adds to what the layer computes."""

    def forward(self, x):
        return super().forward(x) + 1


class Gain(nn.LayerNorm):
    def __init__(self, width):
        super().__init__(width)
        self.note = "kept"


class Named(nn.Linear):
    """A method of this name has a meaning for quantised layers."""

    def stored(self):
        return self.weight


LAYERS = {
    "conv": (lambda: Three(3, 4), (2, 3, 6, 6)),
    "padded": (lambda: Padded(3, 4), (2, 3, 6, 6)),
    "norm": (lambda: Gain(6), (2, 6)),
}


def instrumented(layer, formats):
    made = instrument(layer, TensorCache())
    made.set_slots(formats)
    return made


@pytest.mark.parametrize("name", LAYERS)
def test_it_computes_what_the_subclass_does_on_quantised_operands(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    plain, x = make(), torch.randn(shape)
    expected, weight = copy.deepcopy(plain), plain.weight.detach()
    expected.weight.data = WEIGHT.quantize(weight)
    made = instrumented(copy.deepcopy(plain), {"weight": WEIGHT, "data_in": DATA})
    assert isinstance(made, type(plain))
    assert isinstance(made, Quantized)
    with torch.no_grad():
        assert torch.equal(made(x), expected(DATA.quantize(x)))
        made.set_slots({})
        assert torch.equal(made(x), plain(x))


@pytest.mark.parametrize("name", LAYERS)
def test_it_copies_and_pickles_with_its_formats(name):
    make, shape = LAYERS[name]
    made, x = instrumented(make(), ENTRY), torch.randn(shape)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert type(other) is type(made)
        assert vars(other).get("note") == vars(made).get("note")
        assert torch.equal(other(x), made(x))


def test_a_saved_model_comes_back_bit_for_bit(tmp_path):
    model = nn.Sequential(
        Three(3, 4), nn.ReLU(), Padded(4, 4), nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 2))
    )
    x = torch.randn(2, 3, 4, 4)
    new, info = quantize(trace(model.eval(), x), QuantizeSettings(default=ENTRY))
    assert set(info["assignment"]) == {"0", "1", "2", "4"}
    save(tmp_path / "saved", new.model)
    assert torch.equal(load(tmp_path / "saved", model)(x), new.model(x))


@pytest.mark.parametrize("layer", [Scaled(4, 4), Named(4, 4)])
def test_what_computes_or_means_something_else_is_no_quantised_layer(layer):
    with pytest.raises(BadInput, match=f"cannot be quantised: found '{type(layer).__name__}'"):
        instrument(layer, TensorCache())


def graph():
    """Layers of one type of which one cannot be quantised."""
    model = nn.Sequential(nn.Linear(4, 4), Named(4, 4), Scaled(4, 4), nn.Linear(4, 4))
    return trace(model.eval(), torch.randn(2, 4))


@pytest.mark.parametrize(
    "settings", [QuantizeSettings("type", {"linear": ENTRY}), QuantizeSettings("regex", {".*": ENTRY})]
)
def test_one_that_cannot_be_quantised_is_left_out_and_named(settings):
    _, info = quantize(graph(), settings)
    assert set(info["assignment"]) >= {"0", "2.linear", "3"}
    assert "1" not in info["assignment"]
    assert info["unsupported"]["1"] == "Named has no quantised layer"
    with pytest.raises(BadInput, match="'1' is a Named, which cannot be quantised"):
        quantize(graph(), QuantizeSettings("name", {"1": ENTRY}))


@pytest.mark.parametrize("skip", ["1", "2", "2.linear", "regex:2.*", "2_linear"])
def test_everything_can_be_skipped_by_name_path_module_or_pattern(skip):
    choice = LayerChoice(graph(), "type", [skip])
    paths = [node.site for node in choice.by_key("linear", ("weight",))]
    assert paths == ["0", "3"] if "2" in skip else ["0", "2.linear", "3"]
    bound = Quantize(seed={"linear": {"weight_width": [2, 4]}}, skip=[skip]).bind(graph())
    assert bound.tree.size == 2 ** len(paths)
    left = {} if skip == "1" else {"1": "Named has no quantised layer"}
    assert {dropped.knob: dropped.reason for dropped in bound.dropped} == left


def test_a_skip_that_means_nothing_is_refused():
    with pytest.raises(BadInput, match="no layer of the model has this name"):
        LayerChoice(graph(), "type", ["5"])
