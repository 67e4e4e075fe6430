"""What is saved loads again bit for bit, or is refused with the reason."""

import copy
import json

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput, CheckpointMismatch
from paretobit.formats import Integer
from paretobit.graph import trace, with_conditional
from paretobit.models import build, load, read_manifest, save, source_of, write_manifest
from paretobit.nn import Quantized, SiteNotReached
from paretobit.passes.layers.assignment import apply_assignment, assignment_of
from paretobit.passes.transform import QuantizeSettings, quantize

SOURCE = source_of("jsc-custom", (16,), 5)
X = torch.randn(64, 16)


def trained(quantised):
    """A model of the field whose weights and statistics are not those it was born with."""
    model = build("jsc-custom", (16,), 5, seed=3)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(32, 16))
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    if quantised:
        formats = {"data_in": Integer(8, 4), "weight": Integer(5, 3, rounding="floor"), "bias": Integer(64, 120)}
        relu = {"data_in": Integer(6, 3, signed=False)}
        apply_assignment(model, {"seq_blocks.2": formats, "seq_blocks.4": relu, "seq_blocks.11": formats})
    return model.eval()


def from_python(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(inplace=True), nn.Linear(8, 5))


@torch.no_grad()
def same(left, right):
    return torch.equal(left(X.clone()), right(X.clone()))


@pytest.mark.parametrize("quantised", [False, True])
def test_a_model_of_the_zoo_comes_back_bit_for_bit(tmp_path, quantised):
    model = trained(quantised)
    save(tmp_path / "best", model, source=SOURCE)
    for place in (tmp_path / "best", str(tmp_path / "best"), tmp_path):
        loaded = load(place)
        assert not loaded.training
        assert repr(loaded) == repr(model)
        assert assignment_of(loaded) == assignment_of(model)
        assert same(loaded, model)
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_the_weights_on_disk_are_float_and_the_formats_are_text(tmp_path):
    save(tmp_path, trained(True), source=SOURCE, accuracy=0.7)
    page = json.loads((tmp_path / "model.json").read_text())
    assert page["source"] == {"name": "jsc-custom", "input_shape": [16], "num_classes": 5}
    assert page["layers"]["seq_blocks.4"] == {"data_in": "integer(width=6, frac_width=3, signed=false)"}
    assert page["accuracy"] == read_manifest(tmp_path)["accuracy"] == 0.7
    layer = load(tmp_path).seq_blocks[2]
    assert not torch.equal(layer.weight, layer.slots["weight"].quantize(layer.weight))


def test_a_model_from_python_is_loaded_into_a_copy_of_the_module(tmp_path):
    model = from_python()
    apply_assignment(model, {"0": {"weight": Integer(4, 3)}, "1": {"data_in": Integer(8, 4)}})
    save(tmp_path, model)
    blank = from_python(seed=1).train()
    state, shown = copy.deepcopy(blank.state_dict()), repr(blank)
    loaded = load(tmp_path, model=blank)
    assert same(loaded, model.eval())
    assert loaded is not blank
    assert repr(blank) == shown
    assert blank.training
    assert not any(isinstance(module, Quantized) for module in blank.modules())
    assert all(torch.equal(value, blank.state_dict()[name]) for name, value in state.items())


def test_a_model_from_python_is_not_guessed(tmp_path):
    save(tmp_path, from_python())
    with pytest.raises(BadInput, match=r"given from Python: pass it as load\(path, model=module\)"):
        load(tmp_path)


def test_a_model_from_a_function_is_built_from_its_file_again(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef net(in_features):\n    return nn.Linear(in_features, 2)"
    )
    reference = f"{tmp_path / 'net.py'}:net"
    model = build(reference, (3,), 2, seed=9)
    save(tmp_path / "m", model, source=source_of(reference, (3,), 2))
    assert torch.equal(load(tmp_path / "m").weight, model.weight)


def test_loading_does_not_touch_the_global_generator(tmp_path):
    save(tmp_path, trained(True), source=SOURCE)
    state = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_saving_again_replaces_the_model(tmp_path):
    save(tmp_path, trained(True), source=SOURCE)
    save(tmp_path, trained(False), source=SOURCE)
    assert assignment_of(load(tmp_path)) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no such folder.*gone"):
        load(tmp_path / "gone")
    with pytest.raises(BadInput, match=r"no saved model here"):
        load(tmp_path)
    save(tmp_path, trained(False), source=SOURCE)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(BadInput, match=r"no such file.*weights\.safetensors"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("", "not a saved model"),
        ("{", "not a saved model"),
        ("[]", "not a saved model"),
        ("3", "not a saved model"),
        ("{}", "not a saved model"),
        ('{"version": 1, "layers": {}}', "not a saved model"),
        ('{"version": 2, "source": null, "layers": {}}', "another version.*found 2; allowed: 1"),
        ('{"version": 1, "source": null, "layers": {"9": {}}}', r"no such layer.*found '9'; allowed: 0, 1, 2"),
        ('{"version": 1, "source": null, "layers": {"0": {"wieght": "float"}}}', "no such slot.*'weight'"),
        ('{"version": 1, "source": null, "layers": {"0": {"weight": "intger(width=8)"}}}', "number format"),
        ('{"version": 1, "source": null, "layers": {"0": {"weight": 8}}}', "number format"),
    ],
)
def test_a_damaged_page_is_refused(tmp_path, page, message):
    save(tmp_path, from_python())
    (tmp_path / "model.json").write_text(page)
    with pytest.raises(BadInput, match=message):
        load(tmp_path, model=from_python())


def test_damaged_weights_are_refused(tmp_path):
    save(tmp_path, from_python())
    whole = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(whole[:-8])
    with pytest.raises(BadInput, match=r"weights\.safetensors"):
        load(tmp_path, model=from_python())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 5)), r"of another shape: .*0\.weight 8x16"),
        (lambda: nn.Sequential(nn.Linear(16, 8), nn.ReLU()), r"unexpected: .*2\.weight 5x8"),
        (lambda: nn.Sequential(*from_python(), nn.Linear(5, 5)), r"missing: .*3\.weight 5x5"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, other, message):
    save(tmp_path, from_python())
    with pytest.raises(CheckpointMismatch, match=message):
        load(tmp_path, model=other())


def test_formats_of_a_layer_of_another_type_are_refused(tmp_path):
    model = from_python()
    apply_assignment(model, {"1": {"data_in": Integer(8)}})
    save(tmp_path, model)
    with pytest.raises(BadInput, match=r"cannot be quantised: found 'Flatten'"):
        load(tmp_path, model=nn.Sequential(nn.Linear(16, 8), nn.Flatten(), nn.Linear(8, 5)))


def test_a_page_alone_is_written_with_its_folder(tmp_path):
    write_manifest(tmp_path / "a" / "b", source=None, trial=7)
    assert read_manifest(tmp_path / "a" / "b") == {"version": 1, "source": None, "layers": {}, "trial": 7}


def test_formats_of_functions_come_back(tmp_path):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(x) + x

    model, x = Residual().eval(), torch.randn(2, 3)
    entries = {"add": {"data_in_width": 6}, "linear": {"weight_width": 4}}
    quantised, _ = quantize(trace(model, x), QuantizeSettings("type", entries))
    save(tmp_path / "a", quantised.model)
    loaded = load(tmp_path / "a", model=Residual())
    assert torch.equal(loaded(x), quantised.model(x))
    assert assignment_of(loaded) == assignment_of(quantised.model)


class Caching(nn.Module):
    """Builds what it keeps when it is first called, as rotary tables and masks are built."""

    def __init__(self):
        super().__init__()
        self.linear, self.table = nn.Linear(3, 3), None

    def forward(self, x):
        if self.table is None:
            self.table = torch.cos(torch.ones_like(x[:1]) * 0.7 * torch.arange(3.0))
        return self.linear(x * self.table) * 1.3


@torch.no_grad()
@pytest.mark.parametrize("called", [False, True])
def test_a_model_whose_first_call_differs_comes_back_bit_for_bit(tmp_path, called):
    model, x = Caching().eval(), torch.randn(2, 3)
    if called:
        model(x)
    graph = with_conditional(trace(model, x), {"the first call": x, "a later call": x})
    quantised, info = quantize(graph, QuantizeSettings("type", {"mul": {"data_in": {"width": 4, "frac_width": 2}}}))
    assert len(info["assignment"]) == 2
    expected = quantised.model(x)
    assert torch.equal(quantised.model(x), expected)
    save(tmp_path, quantised.model)
    loaded = load(tmp_path, model=Caching())
    assert [torch.equal(loaded(x), expected) for _ in range(3)] == [True] * 3
    table, q = model.table if called else quantised.model.table, Integer(4, 2).quantize
    assert torch.equal(expected, q(model.linear(q(x) * q(table))) * 1.3)


class Changed(Caching):
    """The same operations from another place in the code."""

    def forward(self, x):
        self.table = torch.cos(torch.arange(3.0))
        y = x * self.table
        return self.linear(y) * 1.3


@torch.no_grad()
def test_a_format_of_a_call_that_the_code_no_longer_has_is_refused_by_name(tmp_path):
    x = torch.randn(2, 3)
    quantised, _ = quantize(trace(Caching().eval(), x), QuantizeSettings("name", {"mul_1": {"data_in_width": 4}}))
    save(tmp_path, quantised.model)
    assert list(read_manifest(tmp_path)["places"]) == ["mul_1"]
    with pytest.raises(SiteNotReached, match=r"'mul_1'.*its code was changed.*Caching\.forward"):
        load(tmp_path, model=Changed())(x)


@torch.no_grad()
def test_a_model_saved_without_places_loads_by_the_order_of_calls(tmp_path):
    x = torch.randn(2, 3)
    model = Changed().eval()
    quantised, _ = quantize(trace(model, x), QuantizeSettings("name", {"mul_1": {"data_in_width": 4}}))
    save(tmp_path, quantised.model)
    page = read_manifest(tmp_path)
    del page["places"]
    (tmp_path / "model.json").write_text(json.dumps(page))
    assert torch.equal(load(tmp_path, model=Changed())(x), quantised.model(x))
