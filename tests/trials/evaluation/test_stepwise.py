"""What is taken over from earlier trials gives the same bits as running everything, or is not taken over."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paretobit as pb
from paretobit.formats import FULL, make
from paretobit.models import build
from paretobit.nn import layer_at, run_by_modules
from paretobit.passes.layers.assignment import instrument_layers
from paretobit.passes.layers.quantizable import slots_at
from paretobit.passes.layers.selection import path_of
from paretobit.training.evaluate import evaluate
from paretobit.trials.evaluation.evaluator import Evaluator, layout_of, stepwise_of
from paretobit.trials.evaluation.reuse import Kept
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import BasicEvaluation, Candidate

FORMATS = [FULL, make("integer", width=6, frac_width=3), make("integer", width=4, frac_width=1)]


def private(model, graph):
    """An instrumented copy, and the layers and functions of it that can be quantised with their slots."""
    import copy

    copied = copy.deepcopy(model).eval()
    nodes = [node for node in graph if slots_at(graph, node)]
    instrument_layers(copied, tuple(path_of(node) for node in nodes))
    run_by_modules(copied)
    return copied, {path_of(node): slots_at(graph, node) for node in nodes}


def vary(draw, model, layers, formats=FORMATS):
    """Other formats in a few layers, mostly late ones: so earlier results can be taken over."""
    for path in draw.sample(list(layers), min(3, len(layers))):
        chosen = {slot: draw.choice(formats) for slot in layers[path]}
        layer_at(model, path).set_slots({slot: f for slot, f in chosen.items() if f is not FULL})


class Branches(nn.Module):
    """Residual, concatenation, a view, works in place on a result that is used before, and a shared layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.shared = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        h = self.first(x)
        kept = torch.tanh(h)
        a = self.act(self.norm(h))
        a = self.shared(self.drop(a))
        a += kept
        b = F.relu(self.shared(a), inplace=True).view(-1, 2, 4).flatten(1)
        return self.last(torch.cat([a, b], 1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.own = nn.MultiheadAttention(8, 2, batch_first=True)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.LayerNorm(8)
        self.place = nn.Parameter(torch.randn(1, 1, 8))
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        h = self.embed(x).unsqueeze(1) + self.place
        h = torch.cat([h, -h, h * 2], 1)
        h = self.norm(h + self.own(h, h, h, need_weights=False)[0])
        scores = torch.matmul(self.query(h), self.key(h).transpose(1, 2)).softmax(-1)
        h = h + torch.matmul(scores, self.value(h))
        return self.last(h.mean(1))


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        h = F.gelu(self.norm(self.conv(x.reshape(-1, 1, 2, 3))))
        h = torch.add(self.up(h), 0.5)
        return self.last(self.pool(h).flatten(1))


def rows_for(count=40, features=6, classes=3):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, features, generator=generator), torch.randint(0, classes, (count,), generator=generator)


@pytest.mark.parametrize("kind", [Branches, Attention, Convolutions])
@pytest.mark.parametrize("batch", [16, 40])
def test_random_changes_of_formats_give_the_bits_of_whole_runs(kind, batch):
    torch.manual_seed(1)
    model, (x, y) = kind().eval(), rows_for()
    graph = pb.trace(model, x[:1])
    with_reuse, without = Evaluator(graph, x, y, batch, 8), Evaluator(graph, x, y, batch, 0)
    assert with_reuse.path == {"layout": "rows_first", "run": "operations"}
    prepared, layers = private(model, graph)
    assert len(layers) >= 5
    draw, seen = random.Random(3), set()
    for _ in range(60):
        expected = evaluate(prepared, x, y, batch)
        assert with_reuse(prepared) == expected
        assert without(prepared) == expected
        seen.add(expected.loss)
        vary(draw, prepared, layers)
    assert len(seen) > 15
    assert with_reuse._kept.used > 0, "something was taken over"


def test_a_published_network_gives_the_bits_of_whole_runs():
    torch.manual_seed(1)
    model = build("resnet20", (3, 32, 32), 10).eval()
    x, y = torch.randn(6, 3, 32, 32), torch.randint(0, 10, (6,))
    graph = pb.trace(model, x[:1])
    evaluator = Evaluator(graph, x, y, 3, 64)
    assert evaluator.path == {"layout": "channels_last", "run": "operations"}
    prepared, layers = private(model, graph)
    late = dict(list(layers.items())[-12:])
    laid_out, draw = x.contiguous(memory_format=torch.channels_last), random.Random(5)
    for _ in range(12):
        assert evaluator(prepared) == evaluate(prepared, laid_out, y, 3)
        vary(draw, prepared, late)
    assert evaluator._kept.used > 0


def test_changed_weights_buffers_and_masks_are_seen(net, rows):
    from paretobit.nn.masks import set_mask

    net.eval()
    graph = pb.trace(net, rows[0][:1])
    evaluator = Evaluator(graph, *rows, 64, 8)
    prepared, layers = private(net, graph)
    draw = random.Random(0)

    def same():
        return evaluator(prepared) == evaluate(prepared, *rows, 64)

    for _ in range(4):
        vary(draw, prepared, layers)
        assert same()
    known = evaluator(prepared).loss
    changes = [
        lambda: prepared[1].weight.mul_(2),
        lambda: prepared[2].running_mean.add_(1),
        lambda: setattr(prepared[4], "weight", nn.Parameter(prepared[4].weight.flip(0))),
        lambda: set_mask(prepared[1], torch.arange(72).view(12, 6) % 2 == 0),
    ]
    for change in changes:
        with torch.no_grad():
            change()
        assert same()
        assert evaluator(prepared).loss != known
        known = evaluator(prepared).loss


def test_random_numbers_of_a_format_are_drawn_anew_every_time(rows):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    graph = pb.trace(model, rows[0][:1])
    evaluator = Evaluator(graph, *rows, 64, 8)
    prepared, _ = private(model, graph)
    drawn = make("integer", width=6, frac_width=3, rounding="stochastic")
    prepared[2].set_slots({"data_in": drawn, "weight": FORMATS[1]})
    for last in (FORMATS[1], FORMATS[2], FORMATS[1], FORMATS[1]):
        prepared[4].set_slots({"weight": last})
        torch.manual_seed(9)
        expected = evaluate(prepared, *rows, 64)
        torch.manual_seed(9)
        assert evaluator(prepared) == expected
        assert evaluator(prepared).loss != expected.loss, "the generator has moved on"


class Counts(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.layer, self.what, self.calls = nn.Linear(6, 3), what, 0
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        if self.what == "attribute":
            self.calls += 1
        if self.what == "buffer":
            self.seen.add_(1)
        if self.what == "draws":
            x = x + torch.rand(6)
        if self.what == "data" and x.sum() > 0:
            x = -x
        if self.what == "dropout":
            x = F.dropout(x, 0.5)
        if self.what == "view in place":
            y = self.layer(x)
            y[:, :2].relu_()
            return y * 1
        return self.layer(x)


@pytest.mark.parametrize("what", ["attribute", "buffer", "draws", "data", "dropout", "view in place"])
def test_a_model_that_does_more_than_compute_is_run_as_a_whole(what, rows):
    torch.manual_seed(0)
    model = Counts(what).eval()
    graph = pb.trace(model, rows[0][:1])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert stepwise_of(graph, graph.model, rows[0][:8], Kept(0)) is None
    assert model.calls == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    evaluator = Evaluator(graph, *rows, 64, 8)
    assert evaluator.path["run"] == "whole"
    torch.manual_seed(4)
    expected = evaluate(model, *rows, 64)
    torch.manual_seed(4)
    assert evaluator(model) == expected


@pytest.mark.parametrize("where", ["model", "layer"])
def test_a_model_with_somebody_elses_hook_is_run_as_a_whole(where, net, rows):
    net.eval()
    (net if where == "model" else net[1]).register_forward_hook(lambda module, args, result: result * 2)
    graph = pb.trace(net, rows[0][:1])
    assert stepwise_of(graph, graph.model, rows[0][:8], Kept(0)) is None


def test_a_transformer_of_a_library_that_cannot_be_traced_is_run_as_a_whole():
    from transformers import BertConfig, BertForSequenceClassification

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            config = BertConfig(
                hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50
            )
            self.inner = BertForSequenceClassification(config)

        def forward(self, ids):
            return self.inner(ids).logits

    torch.manual_seed(0)
    model, x, y = Logits().eval(), torch.randint(0, 50, (12, 5)), torch.randint(0, 2, (12,))
    graph = pb.trace(model, x[:1])
    evaluator = Evaluator(graph, x, y, 6, 8)
    prepared, layers = private(model, graph)
    draw = random.Random(1)
    for _ in range(6):
        assert evaluator(prepared) == evaluate(prepared, x, y, 6)
        vary(draw, prepared, layers)


def test_training_mode_runs_everything(net, rows):
    net.eval()
    evaluator = Evaluator(pb.trace(net, rows[0][:1]), *rows, 64, 8)
    net.train()
    evaluator(net)
    once = net[2].running_mean.clone()
    evaluator(net)
    assert not torch.equal(net[2].running_mean, once)


def test_the_rows_are_never_written_into(net, rows):
    before, net = rows[0].clone(), net.eval()
    assert isinstance(net[0], nn.ReLU)
    assert net[0].inplace
    evaluator = Evaluator(pb.trace(net, rows[0][:1]), *rows, 64, 8)
    for _ in range(3):
        evaluator(net)
    assert torch.equal(rows[0], before)


def test_the_memory_of_what_is_kept_stays_within_the_budget(rows):
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(8)], nn.Linear(6, 3)).eval()
    x, y = rows_for(4000)
    graph = pb.trace(model, x[:1])
    evaluator = Evaluator(graph, x, y, 1000, 1)
    prepared, layers = private(model, graph)
    draw, most = random.Random(0), 0
    for _ in range(150):
        vary(draw, prepared, layers)
        evaluator(prepared)
        kept = evaluator._kept
        tensors = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                   for entry in kept._entries.values() for t in entry.values}  # fmt: skip
        assert sum(tensors.values()) <= kept.used <= 2**20
        most = max(most, kept.used)
    assert most > 2**19


def test_what_is_taken_over_is_not_computed_again(rows, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    x, y = rows_for(2000)
    evaluator = Evaluator(pb.trace(model, x[:1]), x, y, 2000, 64)
    prepared, _ = private(model, pb.trace(model, x[:1]))
    calls = []
    monkeypatch.setattr(
        nn.Linear, "__call__", lambda self, *a: (calls.append(self), nn.Module.__call__(self, *a))[1], raising=False
    )
    for i in range(24):
        prepared[4].set_slots({"weight": FORMATS[1 + i % 2]})
        calls.clear()
        evaluator(prepared)
    assert prepared[0] not in calls
    assert prepared[2] not in calls


def test_images_are_laid_out_channels_last_only_where_the_model_takes_it():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

        def forward(self, x):
            return self.last(self.conv(x).view(len(x), -1))

    x = torch.randn(4, 3, 8, 8)
    flattens = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    views = Views().eval()
    assert layout_of(pb.trace(flattens, x[:1]), x) == "channels_last"
    assert layout_of(pb.trace(views, x[:1]), x) == "rows_first"
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    assert layout_of(pb.trace(linear, x[:1]), x) == "rows_first"


def test_the_runner_says_by_which_path_it_measures_and_memory_is_no_part_of_it(net, rows):
    evidence = Evidence(pb.trace(net, rows[0][:1]), {"val": rows})
    some, none = (BasicEvaluation(evidence, BasicEvaluation.Settings(reuse_mb=mb)) for mb in (64, 0))
    assert some.identity == none.identity
    assert some.identity["path"] == {"layout": "rows_first", "run": "operations"}
    net.eval()
    assert some.measure(Candidate({}, net)) == none.measure(Candidate({}, net))


def test_many_rows_and_few_classes_still_give_the_metrics_of_plain_torch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x, y = rows_for(3000)
    evaluator = Evaluator(pb.trace(model, x[:1]), x, y, 3000, 0)
    with torch.no_grad():
        logits = model(x).double()
    found = evaluator(model)
    assert found.loss == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-6)
    assert found.accuracy == pytest.approx((logits.argmax(1) == y).double().mean().item(), abs=1 / 3000)
