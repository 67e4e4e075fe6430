"""Each layer alone in each format: the figures of a model quantised by hand, the fragile ones first."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer, ScaledInteger, make
from paretobit.formats import parse as make_format
from paretobit.graph import trace
from paretobit.models import build
from paretobit.nn import Quantized
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.strategies.insight.sensitivity import DEFAULT_FORMATS, sensitivity
from paretobit.strategies.insight.sensitivity_trials import for_data

INT8, INT4 = ScaledInteger(8, per="channel"), ScaledInteger(4, per="channel")


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5))
    nn.init.normal_(model[1].weight)
    return trace(model, torch.zeros(2, 1, 8, 8))


def data(number=3, rows=16):
    generator = torch.Generator().manual_seed(1)
    x = [torch.randn(rows, 1, 8, 8, generator=generator) for _ in range(number)]
    y = [torch.randint(0, 5, (rows,), generator=generator) for _ in range(number)]
    return x, y


def db(reference, approximate):
    reference, approximate = reference.double(), approximate.double()
    return 10 * math.log10(reference.square().sum() / (approximate - reference).square().sum())


def by_hand(model, path, slots, x, y):
    """SQNR of a layer's output, of the model's, and the change of loss, one batch at a time."""
    outputs = {"float": [], "quantised": []}
    ends = {"float": [], "quantised": []}
    quantised = copy.deepcopy(model).eval()
    apply_assignment(quantised, {path: slots})
    with torch.no_grad():
        for name, one in (("float", copy.deepcopy(model).eval()), ("quantised", quantised)):
            keep = one.get_submodule(path).register_forward_hook(
                lambda module, args, result, name=name: outputs[name].append(result.clone())
            )
            ends[name] = [one(batch) for batch in x]
            keep.remove()
    outputs, ends = ({k: torch.cat(v) for k, v in found.items()} for found in (outputs, ends))
    loss = {k: F.cross_entropy(v.double(), torch.cat(y)).item() for k, v in ends.items()}
    return db(*outputs.values()), db(*ends.values()), loss["quantised"] - loss["float"]


@pytest.mark.parametrize("slots", ["weight", "data", "both"])
def test_every_row_is_that_of_a_model_quantised_by_hand(net, slots):
    x, y = data()
    formats = [INT8, INT4, make("mxfp4"), Integer(6, 3)]
    report = sensitivity(net, x, formats, targets=y, slots=[slots])
    assert len(report.rows) == len(formats) * (3 if slots == "weight" else 4)  # the ReLU has data only
    for row in report.rows:
        f = next(f for f in formats if str(f) == row.format)
        given = {slot: f if slot == "weight" else for_data(f) for slot in row.slots}
        assert row.slots == {slot: str(g) for slot, g in given.items()}
        found = (row.layer_sqnr, row.model_sqnr, row.loss_change)
        assert found == pytest.approx(by_hand(net.model, row.layer, given, x, y), rel=1e-4, abs=1e-7)


def test_the_most_fragile_comes_first(net):
    x, y = data()
    report = sensitivity(net, x, targets=y)
    ratios = [row.model_sqnr for row in report.rows]
    assert ratios == sorted(ratios)
    assert {row.format for row in report.rows} == {str(f) for f in DEFAULT_FORMATS}
    by_format = {f: [r.model_sqnr for r in report.rows if r.format == str(f)] for f in (INT8, INT4)}
    assert max(by_format[INT4]) < min(by_format[INT8])


def test_baseline_rows_and_what_was_left_out(net):
    x, y = data()
    report = sensitivity(net, x, [INT8], targets=y, slots=["weight"])
    with torch.no_grad():
        expected = F.cross_entropy(net.model.eval()(torch.cat(x)), torch.cat(y)).item()
    assert report.loss == pytest.approx(expected, rel=1e-5)
    assert report.samples == 48
    assert report.skipped == {"2": "a relu has no such slot"}


def test_batches_of_different_size_weigh_by_their_rows(net):
    x, y = torch.cat(data()[0]), torch.cat(data()[1])
    fixed = [Integer(4, 2)]  # no scale that would follow the batch
    one = sensitivity(net, [x], fixed, targets=[y])
    split = sensitivity(net, x.split([1, 30, 17]), fixed, targets=y.split([1, 30, 17]))
    for a, b in zip(one.rows, split.rows, strict=True):
        assert (a.layer, a.slots) == (b.layer, b.slots)
        assert a.loss_change == pytest.approx(b.loss_change, abs=1e-6)
        assert a.model_sqnr == pytest.approx(b.model_sqnr, abs=1e-3)


def test_the_divergence_from_the_float_output_needs_no_labels(net):
    x, _ = data()
    report = sensitivity(net, x, [INT4], loss="kl", keys=["linear"])
    assert report.loss == 0
    (row,) = report.rows
    quantised = copy.deepcopy(net.model).eval()
    apply_assignment(quantised, {"4": {"weight": INT4, "data_in": for_data(INT4)}})
    with torch.no_grad():
        p = torch.cat([net.model.eval()(b) for b in x]).double().log_softmax(1)
        q = torch.cat([quantised(b) for b in x]).double().log_softmax(1)
    assert row.loss_change == pytest.approx((p.exp() * (p - q)).sum(1).mean().item(), rel=1e-5)


def test_for_a_model_of_one_number_the_divergence_is_half_the_squared_error():
    torch.manual_seed(0)
    model, x = nn.Linear(6, 1).eval(), torch.randn(40, 6)
    net = nn.Sequential(model)
    (row,) = sensitivity(trace(net, x), [x[:30], x[30:]], [INT4], loss="kl", slots=["weight"]).rows
    with torch.no_grad():
        change = x @ (INT4.quantize(model.weight) - model.weight).T
    assert row.loss_change == pytest.approx(0.5 * change.square().mean().item(), rel=1e-4)


def test_a_loss_of_ones_own(net):
    x, _ = data()
    targets = [torch.randn(16, 5) for _ in x]
    report = sensitivity(
        net, x, [INT4], targets=targets, loss=lambda out, t: (out - t).abs().mean(), by="name", keys=["4"]
    )
    with torch.no_grad():
        expected = (torch.cat([net.model.eval()(b) for b in x]) - torch.cat(targets)).abs().mean()
    assert report.loss == pytest.approx(expected.item(), rel=1e-5)
    assert report.rows[0].loss_change != 0


def test_the_callers_model_is_not_changed(net):
    net.model.train()
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    x, y = data()
    sensitivity(net, x, [INT8], targets=y)
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    assert not any(isinstance(m, Quantized) or m._forward_pre_hooks for m in net.model.modules())
    assert all(module.training for module in net.model.modules())


def test_formats_that_a_model_carries_are_taken_off_the_copy(net):
    x, y = data()
    plain = sensitivity(net, x, [INT8], targets=y)
    carrying = copy.deepcopy(net.model)
    apply_assignment(carrying, {"0": {"weight": Integer(2)}})
    assert sensitivity(net.with_model(carrying), x, [INT8], targets=y) == plain
    assert carrying[0].slots["weight"] == Integer(2)


def test_what_is_no_number_is_named(net):
    x, y = data()
    exact = sensitivity(net, x, [Integer(32, 8)], targets=y, by="name", keys=["2"])
    assert exact.rows[0].layer_sqnr > 40
    with torch.no_grad():
        net.model[4].weight.mul_(2.0**20).round_()
        net.model[4].bias.zero_()
        net.model[0].weight.fill_(math.nan)
    report = sensitivity(net, x, [Integer(40, 0)], targets=y, slots=["weight"])
    by_layer = {row.layer: row for row in report.rows}
    assert by_layer["4"].layer_sqnr == by_layer["4"].model_sqnr == "not finite"
    assert {report.loss, *(row.loss_change for row in report.rows)} == {"not finite"}


def test_no_noise_is_exact_and_comes_last(net):
    x, y = data()
    with torch.no_grad():
        net.model[4].weight.mul_(100).round_()
    report = sensitivity(net, x, [Integer(16, 0)], targets=y, slots=["weight"])
    last = report.rows[-1]
    assert (last.layer, last.layer_sqnr, last.model_sqnr, last.loss_change) == ("4", "exact", "exact", 0)


def test_a_format_that_does_not_fit_a_layer_is_listed(net):
    x, y = data()
    wrong = ScaledInteger(8, per="channel", axis=3)
    report = sensitivity(net, x, [wrong], targets=y, by="type", keys=["linear", "conv2d"])
    assert {row.layer for row in report.rows} == {"0"}
    (reason,) = (text for name, text in report.skipped.items() if name.startswith("4 in"))
    assert "no such axis" in reason


class Attention(nn.Module):
    """Products of data with data, and with a parameter, in functions."""

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)
        self.table = nn.Parameter(torch.randn(5, 8))

    def forward(self, x):
        attended = F.scaled_dot_product_attention(self.q(x), self.k(x), x)
        return F.linear(attended.mean(1) + x[:, 0], self.table)


def test_functions_that_multiply_are_measured_as_layers_are():
    torch.manual_seed(0)
    model = Attention()
    x = torch.randn(32, 6, 8)
    graph = trace(model, x)
    report = sensitivity(graph, x.split(16), [INT4], loss="kl")
    rows = {row.layer: row for row in report.rows}
    assert set(rows) == {"q", "k", "scaled_dot_product_attention", "linear"}
    assert {node: report.skipped[node] for node in ("mean", "add")} == {
        "mean": "the function mean is tried where a key names it",
        "add": "the function add is tried where a key names it",
    }
    per_tensor = str(for_data(INT4))
    assert rows["scaled_dot_product_attention"].slots == {"data_in": per_tensor, "weight": per_tensor}
    assert rows["linear"].slots == {"data_in": per_tensor, "weight": str(INT4)}  # a parameter has channels
    for name in rows:
        quantised = copy.deepcopy(model)
        apply_assignment(quantised, {name: {s: make_format(f) for s, f in rows[name].slots.items()}})
        with torch.no_grad():
            ends = [torch.cat([m(b) for b in x.split(16)]) for m in (model, quantised)]
        assert rows[name].model_sqnr == pytest.approx(db(*ends), rel=1e-4)
    assert rows["linear"].layer_sqnr == pytest.approx(rows["linear"].model_sqnr, rel=1e-4)


def test_other_functions_are_measured_where_a_key_names_them():
    torch.manual_seed(0)
    x = torch.randn(32, 6, 8)
    report = sensitivity(trace(Attention(), x), [x], [INT4], loss="kl", keys=["add"])
    assert [row.layer for row in report.rows] == ["add"]
    assert isinstance(report.rows[0].layer_sqnr, float)
    assert report.skipped == {}


class Shared(nn.Module):
    """A layer called twice, a function between, and one that no row reaches."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        if x.sum() > 1e9:
            return self.never(x)
        return {"logits": self.twice(torch.relu(self.twice(x)))}


def test_shared_layers_functions_and_outputs_in_containers():
    torch.manual_seed(0)
    model = Shared()
    x = torch.randn(32, 4)
    graph = trace(model, x)
    report = sensitivity(graph, [{"x": x}], [INT4], loss="kl")
    (row,) = report.rows
    quantised = copy.deepcopy(model)
    apply_assignment(quantised, {"twice": {"weight": INT4, "data_in": for_data(INT4)}})
    with torch.no_grad():
        assert row.model_sqnr == pytest.approx(db(model(x)["logits"], quantised(x)["logits"]), rel=1e-5)
    assert report.skipped["relu"] == "the function relu is tried where a key names it"


def test_a_layer_that_only_some_batches_reach_is_harmless_on_the_others():
    torch.manual_seed(0)
    without, reaching = torch.full((8, 4), 1e9), torch.randn(8, 4)
    graph = trace(Shared(), {"x": reaching})

    def changes(*batches):
        given = [{"x": batch} for batch in batches]
        report = sensitivity(graph, given, [INT4], loss=mean_of)
        return {row.layer: row.loss_change for row in report.rows}

    alone, both = changes(reaching), changes(without, reaching)
    assert set(alone) == {"twice"}
    assert both == pytest.approx({layer: change / 2 for layer, change in alone.items()}, rel=1e-3, abs=1e-6)
    assert changes(without) == {}


def mean_of(result, target):
    return result["logits"].double().mean() if isinstance(result, dict) else 0.0


def test_a_layer_in_place_and_the_residual_beside_it_are_not_disturbed():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.relu = nn.Linear(6, 6), nn.ReLU(inplace=True)

        def forward(self, x):
            y = self.a(x)
            return y + self.relu(y)

    torch.manual_seed(0)
    model = Residual()
    x, y = torch.randn(64, 6), torch.randint(0, 6, (64,))
    report = sensitivity(trace(model, x), [x], [Integer(4, 2)], targets=[y], keys=["linear"], slots=["weight"])
    quantised = copy.deepcopy(model)
    apply_assignment(quantised, {"a": {"weight": Integer(4, 2)}})
    with torch.no_grad():
        assert report.rows[0].model_sqnr == pytest.approx(db(model(x), quantised(x)), rel=1e-5)


def test_several_slots_give_a_row_each_and_none_twice(net):
    x, y = data()
    report = sensitivity(net, x, [INT8], targets=y, slots=["weight", "data", "both"])
    seen = sorted((row.layer, tuple(row.slots)) for row in report.rows)
    assert seen == [
        ("0", ("data_in",)), ("0", ("data_in", "weight")), ("0", ("weight",)),
        ("1", ("data_in",)), ("1", ("data_in", "weight")), ("1", ("weight",)),
        ("2", ("data_in",)),
        ("4", ("data_in",)), ("4", ("data_in", "weight")), ("4", ("weight",)),
    ]  # fmt: skip


def test_scales_per_channel_are_for_weights_unless_an_axis_is_named():
    assert for_data(INT8) == ScaledInteger(8)
    for f in (ScaledInteger(8, per="channel", axis=1), ScaledInteger(8, per="group"), make("mxfp4"), FULL):
        assert for_data(f) is f


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": []}, "needs data"),
        ({"formats": []}, r"nothing to try \(formats\)"),
        ({"slots": ["weights"]}, r"\(slots\).*did you mean 'weight'"),
        ({"loss": "cross-entropy"}, "did you mean 'cross_entropy'"),
        ({"targets": None}, "needs labels"),
        ({"targets": [torch.zeros(16)]}, "differ in number"),
        ({"targets": [torch.zeros(16)] * 3}, r"labels \(rows,\)"),
        ({"keys": ["flatten"]}, "nothing that can be quantised"),
        ({"keys": ["lineer"]}, "did you mean 'linear'"),
    ],
)
def test_what_makes_no_sense_is_refused(net, arguments, message):
    x, y = data()
    given = {"batches": x, "formats": [INT8], "targets": y, **arguments}
    with pytest.raises(BadInput, match=message):
        sensitivity(net, given.pop("batches"), given.pop("formats"), **given)


def test_the_zoo_is_measured_layer_by_layer():
    torch.manual_seed(0)
    graph = trace(build("jsc-custom", (16,), 5), torch.zeros(2, 16))
    report = sensitivity(graph, [torch.randn(64, 16)], [INT8], loss="kl", keys=["linear"])
    assert {row.layer for row in report.rows} == {"seq_blocks_2", "seq_blocks_6", "seq_blocks_10"}


def test_a_transformer_is_measured_in_its_layers_and_its_products():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    batches = [{"input_ids": torch.randint(0, 50, (4, 8)), "attention_mask": torch.ones(4, 8)} for _ in "ab"]
    graph = trace(model, batches[0])
    report = sensitivity(graph, batches, [INT4], targets=[torch.tensor([0, 1, 2, 0])] * 2)
    ops = [row.op for row in report.rows]
    assert ops.count("linear") == 2 * 6 + 2
    assert ops.count("scaled_dot_product_attention") == 2
    assert ops.count("embedding") == 3
    assert all(isinstance(row.model_sqnr, float) and row.layer_sqnr != "exact" for row in report.rows)
    classifier = next(row for row in report.rows if row.layer == "classifier")
    assert classifier.layer_sqnr == pytest.approx(classifier.model_sqnr, rel=1e-4)
    assert set(report.skipped.values()) >= {"the function add is tried where a key names it"}


class Selecting(nn.Module):
    """As many rows as the layer lets through."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.layer(x)
        return self.head(y[y[:, 0] > 0.05])


def test_what_cannot_be_compared_is_listed_with_the_reason():
    torch.manual_seed(0)
    model, x = Selecting(), torch.randn(64, 6)
    graph = trace(model, x)
    found = sensitivity(graph, [x], [ScaledInteger(2)], loss="kl")
    assert [row.layer for row in found.rows] == ["head"]
    (reason,) = [why for name, why in found.skipped.items() if name.startswith("layer")]
    assert "size" in reason or "shape" in reason


def test_outputs_that_are_right_or_wrong_are_refused_in_words(net):
    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x).argmax(-1)

    x = torch.randn(8, 6)
    with pytest.raises(BadInput, match=r"an output of floating-point numbers.*'torch\.int64'"):
        sensitivity(trace(Deciding(), x), [x], loss="kl")
