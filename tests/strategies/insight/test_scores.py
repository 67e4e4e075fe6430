"""Scores are what they say: second-order terms by hand, divergences of the whole model by hand."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

import paretobit as pb
from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.runtime import derive_seed
from paretobit.spaces.knobs import Config
from paretobit.strategies.insight.model_insight import DRAWS, ModelInsight
from paretobit.trials.evidence import Evidence

SEED = 5
FLOAT = "float"
WEIGHTS = {"weight": [{"width": 3, "frac_width": 2}, {"width": 5, "frac_width": 3}, "NA"]}
DATA = {"data_in_width": [4, 6], "data_in_frac_width": 3}
NONE = Config({})


def insight_of(model, space, calibration, example=None):
    graph = pb.trace(model.eval(), calibration.batches[0] if example is None else example)
    bound = space.bind(graph, calibration)
    return bound, ModelInsight(bound, Evidence(graph, {}, calibration), lambda config: {}, SEED)


def score_of(table, values):
    """The score of the group's option that has these values."""
    for group in table.groups:
        for option, score in zip(group.options, group.scores, strict=True):
            if dict(option) == values:
                return score
    raise AssertionError(f"no option {values} in {table.groups}")


def every_option(table):
    return [(o, s) for g in table.groups for o, s in zip(g.options, g.scores, strict=True)]


def labels(logits_of_batches, draws=DRAWS):
    """For every batch `draws` columns of labels, as the seed draws them."""
    generator = torch.Generator().manual_seed(derive_seed(SEED, "labels", []))
    return [
        [torch.multinomial(z.detach().softmax(1), 1, generator=generator).squeeze(1) for _ in range(draws)]
        for z in logits_of_batches
    ]


def fisher_by_hand(parts, drawn):
    """Diagonal and directional sums of one change, sample by sample.

    Args:
        parts: For every batch the outputs of a layer's calls, what they become, and `rest(n, outputs)`: the
            logits of sample `n` from what the calls gave for it.
        drawn: For every batch the labels.
    """
    diagonal = directional = 0.0
    for (outputs, changed, rest), columns in zip(parts, drawn, strict=True):
        for column in columns:
            for n in range(len(column)):
                here = [z[n].detach().requires_grad_() for z in outputs]
                loss = F.cross_entropy(rest(n, here).unsqueeze(0), column[n : n + 1])
                along = 0.0
                for g, z, q in zip(torch.autograd.grad(loss, here), outputs, changed, strict=True):
                    change = (q[n] - z[n]).double()
                    diagonal += float((g.double().square() * change.square()).sum())
                    along += float((g.double() * change).sum())
                directional += along**2
    total = sum(len(column) for columns in drawn for column in columns)
    return 0.5 * diagonal / total, 0.5 * directional / total


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)).eval()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(n, 4, generator=generator) for n in (7, 5))


def test_both_gradient_tables_are_the_formulas_sample_by_sample(batches):
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(inplace=True), nn.Linear(6, 3, bias=False))
    first, _, second = mlp
    space = pb.Quantize(seed={"linear": {**WEIGHTS, **DATA}})
    _, insight = insight_of(mlp, space, Calibration(batches))
    with torch.no_grad():
        hidden = [first(x) for x in batches]
        logits = [second(z.relu()) for z in hidden]
    drawn = labels(logits)

    def after_first(n, z):
        return second(z[0].relu())

    def after_second(n, z):
        return z[0]

    q, coarse = Integer(3, 2), Integer(4, 3)
    with torch.no_grad():
        cases = {
            ("0.weight", "integer(width=3, frac_width=2)"): [
                ([z], [F.linear(x, q.quantize(first.weight))], after_first)
                for x, z in zip(batches, hidden, strict=True)
            ],
            ("0.data_in_width", 4): [
                ([z], [first(coarse.quantize(x))], after_first) for x, z in zip(batches, hidden, strict=True)
            ],
            ("2.data_in_width", 4): [
                ([y], [second(coarse.quantize(z.relu()))], after_second) for z, y in zip(hidden, logits, strict=True)
            ],
        }
    tables = {name: insight.table(name, NONE) for name in ("diagonal", "directional")}
    for (knob, value), parts in cases.items():
        layer = knob.partition(".")[0]
        rest = {f"{layer}.data_in_width": 4, f"{layer}.weight": FLOAT}
        expected = fisher_by_hand(parts, drawn)
        for name, wanted in zip(("diagonal", "directional"), expected, strict=True):
            found = score_of(tables[name], {**rest, knob: value})
            if knob.endswith("weight"):  # that of the data is in it, too
                found -= score_of(tables[name], rest)
            assert found == pytest.approx(wanted, rel=1e-4), (knob, name)
    mean_loss = sum(float(-(z.softmax(1) * z.log_softmax(1)).sum()) for z in logits) / 12
    assert tables["diagonal"].base == pytest.approx(mean_loss, rel=1e-5)


class Twice(nn.Module):
    """One layer called twice, with a residual sum."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        y = torch.tanh(self.layer(x))
        y = y + self.layer(y)
        return self.head(y)


def test_the_calls_of_a_shared_layer_change_together(batches):
    torch.manual_seed(0)
    model = Twice().eval()
    bound, insight = insight_of(model, pb.Quantize(by="name", seed={"layer": WEIGHTS}), Calibration(batches))
    q = Integer(3, 2).quantize(model.layer.weight.detach())
    parts, logits = [], []
    with torch.no_grad():
        for x in batches:
            one = model.layer(x)
            two = model.layer(torch.tanh(one))
            changed = [F.linear(x, q, model.layer.bias), F.linear(torch.tanh(one), q, model.layer.bias)]

            def rest(n, z, one=one, two=two):
                y = torch.tanh(z[0])
                return model.head(y + z[1] + (model.layer(y) - model.layer(y.detach())))

            parts.append(([one, two], changed, rest))
            logits.append(model(x))
    expected = fisher_by_hand(parts, labels(logits))
    option = dict(bound.tree.at(0))
    assert score_of(insight.table("diagonal", NONE), option) == pytest.approx(expected[0], rel=1e-4)
    assert score_of(insight.table("directional", NONE), option) == pytest.approx(expected[1], rel=1e-4)


class Branches(nn.Module):
    """Convolutions, BatchNorm, and sums and activations in place, or not."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.conv, self.norm, self.again = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        self.relu, self.head = nn.ReLU(inplace=inplace), nn.Linear(3, 4)

    def forward(self, x):
        y = self.relu(self.norm(self.conv(x)))
        z = self.again(y)
        if self.inplace:
            z += y
        else:
            z = z + y
        return self.head(self.relu(z).mean((2, 3)))


def test_what_works_in_place_scores_as_what_does_not():
    generator = torch.Generator().manual_seed(1)
    calibration = Calibration((torch.randn(9, 2, 5, 5, generator=generator),))
    space = pb.Quantize(seed={"conv2d": {**WEIGHTS, **DATA}, "batchnorm2d": DATA, "linear": WEIGHTS, "relu": DATA})
    found = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = Branches(inplace)
        model.train()(torch.randn(32, 2, 5, 5))
        bound, insight = insight_of(model, space, calibration)
        tables = [insight.table(name, NONE) for name in insight.tables]
        found.append([*tables, insight.table("diagonal", NONE, bound.tree.at(0))])
    assert found[0] == found[1]
    assert all(score > 0 for o, score in every_option(found[0][0]) if any(v != FLOAT for v in o.values()))


def test_divergences_are_those_of_the_model_with_one_slot_set(mlp, batches):
    bound, insight = insight_of(mlp, pb.Quantize(seed={"linear": WEIGHTS}), Calibration(batches))
    table = insight.table("kl", NONE)
    model = bound.prepare()
    for layer, path in ((model[0], "0"), (model[2], "2")):
        for text, number_format in (("integer(width=3, frac_width=2)", Integer(3, 2)), (FLOAT, None)):
            expected = 0.0
            with torch.no_grad():
                reference = [model(x.clone()) for x in batches]
                layer.set_slots({"weight": number_format} if number_format else {})
                for x, before in zip(batches, reference, strict=True):
                    after = model(x.clone()).log_softmax(1)
                    expected += float(F.kl_div(after, before.log_softmax(1), log_target=True, reduction="sum"))
                layer.set_slots({})
            assert score_of(table, {f"{path}.weight": text}) == pytest.approx(expected / 12, rel=1e-4, abs=1e-9)
    assert table.base == 0


def test_small_changes_diverge_by_what_gradients_say():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    fine = {"weight": [{"width": 10, "frac_width": 7}]}
    x = torch.randn(4000, 8)
    space = pb.Quantize(seed={"linear": {"weight": [*fine["weight"], FLOAT]}})
    _, insight = insight_of(model, space, Calibration((x,)))
    directional, kl = (insight.table(name, NONE) for name in ("directional", "kl"))
    for (option, one), (_, other) in zip(every_option(directional), every_option(kl), strict=True):
        assert one == pytest.approx(other, rel=0.1), option


def test_a_users_loss_is_the_one_that_is_differentiated(mlp, batches):
    targets = tuple(torch.randn(len(x), 3, generator=torch.Generator().manual_seed(2)) for x in batches)
    calibration = Calibration(batches, targets, lambda output, target: (output - target).square().mean())
    _, insight = insight_of(mlp, pb.Quantize(by="name", seed={"2": WEIGHTS}), calibration)
    diagonal = directional = 0.0
    q = Integer(3, 2).quantize(mlp[2].weight.detach())
    with torch.no_grad():
        for x, y in zip(batches, targets, strict=True):
            hidden = mlp[:2](x.clone())
            output = mlp[2](hidden)
            g = 2 * (output - y) / 3  # of the mean over a row's three numbers
            change = F.linear(hidden, q, mlp[2].bias) - output
            diagonal += float((g.square() * change.square()).sum())
            directional += float((g * change).sum(1).square().sum())
    option = {"2.weight": "integer(width=3, frac_width=2)"}
    assert score_of(insight.table("diagonal", NONE), option) == pytest.approx(diagonal / 24, rel=1e-4)
    assert score_of(insight.table("directional", NONE), option) == pytest.approx(directional / 24, rel=1e-4)
    loss = (
        sum(float(calibration.loss(mlp(x.clone()).detach(), y)) * len(x) for x, y in zip(batches, targets, strict=True))
        / 12
    )
    assert insight.table("diagonal", NONE).base == pytest.approx(loss, rel=1e-5)


def test_a_loss_without_targets_is_given_the_batch(mlp, batches):
    seen = []

    def loss(output, batch):
        seen.append(batch.shape)
        return output.square().mean()

    _, insight = insight_of(mlp, pb.Quantize(seed={"linear": WEIGHTS}), Calibration(batches, None, loss))
    insight.table("diagonal", NONE)
    assert seen == [x.shape for x in batches]


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
def test_a_model_of_one_number_has_half_the_squared_error(batches, shape):
    torch.manual_seed(0)

    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x):
            return self.layer(x).reshape(shape)

    model = Regression()
    _, insight = insight_of(model, pb.Quantize(seed={"linear": WEIGHTS}), Calibration(batches))
    q = Integer(3, 2).quantize(model.layer.weight.detach())
    expected = sum(float((x @ (q - model.layer.weight.detach()).T).square().sum()) for x in batches) / 24
    for name in insight.tables:  # a linear model: all three agree
        found = score_of(insight.table(name, NONE), {"layer.weight": "integer(width=3, frac_width=2)"})
        assert found == pytest.approx(expected, rel=1e-4), name


class Attending(nn.Module):
    """Self-attention, then the mean over tokens."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_attention_and_functions_are_scored_by_their_outputs():
    torch.manual_seed(0)
    model, x = Attending().eval(), torch.randn(6, 5, 8)
    bound, insight = insight_of(model, pb.Quantize(by="name", seed={"attention": WEIGHTS}), Calibration((x,)))
    prepared = bound.prepare()
    option = dict(bound.tree.at(0))
    with torch.no_grad():
        before = prepared.attention(x, x, x, need_weights=False)[0].clone()
        bound.apply(prepared, bound.tree.at(0))
        after = prepared.attention(x, x, x, need_weights=False)[0].clone()
        logits = model(x)
        changed = prepared(x)
    rest = lambda n, z: model.head(z[0].mean(0))  # noqa: E731
    expected = fisher_by_hand([([before], [after], rest)], labels([logits]))
    for name, wanted in zip(("diagonal", "directional"), expected, strict=True):
        assert score_of(insight.table(name, NONE), option) == pytest.approx(wanted, rel=1e-4)
    kl = F.kl_div(changed.log_softmax(1), logits.log_softmax(1), log_target=True, reduction="sum") / 6
    assert score_of(insight.table("kl", NONE), option) == pytest.approx(float(kl), rel=1e-3)


class Remembering(nn.Module):
    """What a recurrent layer has at the end, of sequences of several lengths; their outputs are not looked at."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        packed = pack_padded_sequence(x, torch.arange(len(x)) % 5 + 1, batch_first=True, enforce_sorted=False)
        return self.head(self.rnn(packed)[1][0])


def test_a_layer_of_several_outputs_is_scored_by_those_that_matter():
    torch.manual_seed(0)
    model, x = Remembering().eval(), torch.randn(7, 5, 8)
    bound, insight = insight_of(model, pb.Quantize(by="name", seed={"rnn": WEIGHTS}), Calibration((x,)))
    rnn, option = bound.prepare().rnn, dict(bound.tree.at(0))
    packed = pack_padded_sequence(x, torch.arange(7) % 5 + 1, batch_first=True, enforce_sorted=False)
    last = []
    for formats in ({}, {"weight": Integer(3, 2)}):
        rnn.set_slots(formats)
        last.append(rnn(packed)[1][0].detach())
    expected = fisher_by_hand([([last[0]], [last[1]], lambda n, z: model.head(z[0]))], labels([model(x)]))
    for name, wanted in zip(("diagonal", "directional"), expected, strict=True):
        assert score_of(insight.table(name, NONE), option) == pytest.approx(wanted, rel=1e-4)


def test_the_operands_of_functions_are_scored():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return torch.add(self.layer(x), x[:, :3])

    torch.manual_seed(0)
    model, x = Sum().eval(), torch.randn(10, 4)
    bound, insight = insight_of(
        model, pb.Quantize(seed={"add": {"data_in_width": [3, 6], "data_in_frac_width": 2}}), Calibration((x,))
    )
    option = dict(bound.tree.at(0))
    prepared = bound.prepare()
    with torch.no_grad():
        logits = model(x)
        changed = bound.apply(prepared, bound.tree.at(0))(x)
        assert not torch.equal(logits, changed)
    expected = fisher_by_hand([([logits], [changed], lambda n, z: z[0])], labels([logits]))
    table = insight.table("directional", NONE)
    assert sum(s for o, s in every_option(table) if dict(o) == option) == pytest.approx(expected[1], rel=1e-3)
    with torch.no_grad():
        assert torch.equal(bound.apply(prepared, None)(x), logits)


def test_pruning_scores_what_the_pruned_weights_do(mlp, batches):
    space = pb.Prune(by="name", seed={"0": {"sparsity": [0.0, 0.5], "method": "l1-norm"}})
    bound, insight = insight_of(mlp, space, Calibration(batches))
    weight = mlp[0].weight.detach()
    kept = weight.abs() > weight.abs().flatten().sort().values[11]  # 12 of 24 go
    parts, logits, kl = [], [], 0.0
    with torch.no_grad():
        for x in batches:
            z, q = mlp[0](x), F.linear(x, weight * kept, mlp[0].bias)
            logits.append(mlp[2](z.relu()))
            parts.append(([z], [q], lambda n, z: mlp[2](z[0].relu())))
            pruned = mlp[2](q.relu())
            before = logits[-1].log_softmax(1)
            kl += float(F.kl_div(pruned.log_softmax(1), before, log_target=True, reduction="sum"))
    expected = dict(zip(("diagonal", "directional"), fisher_by_hand(parts, labels(logits)), strict=True))
    for name, wanted in {**expected, "kl": kl / 12}.items():
        table = insight.table(name, NONE)
        assert score_of(table, {"0.sparsity": 0.5}) == pytest.approx(wanted, rel=1e-4), name
        assert score_of(table, {"0.sparsity": 0.0}) == 0
    prepared = bound.prepare()
    assert torch.equal(prepared[0].weight, weight)


def test_pruning_and_formats_are_scored_beside_each_other(mlp, batches):
    prune = pb.Prune(by="name", seed={"0": {"sparsity": [0.0, 0.5]}})
    product = pb.Quantize(by="name", seed={"0": WEIGHTS}) * prune
    _, alone = insight_of(mlp, prune, Calibration(batches))
    _, both = insight_of(mlp, product, Calibration(batches))
    for name in both.tables:
        pruned = score_of(alone.table(name, NONE), {"0.sparsity": 0.5})
        assert score_of(both.table(name, NONE), {"0.weight": FLOAT, "0.sparsity": 0.5}) == pytest.approx(pruned)
        quantised = score_of(both.table(name, NONE), {"0.weight": "integer(width=3, frac_width=2)", "0.sparsity": 0.0})
        together = score_of(both.table(name, NONE), {"0.weight": "integer(width=3, frac_width=2)", "0.sparsity": 0.5})
        assert together == pytest.approx(quantised + pruned)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_format_that_overflows_is_excluded_by_name(mlp, batches, bad, monkeypatch):
    whole = Integer.quantize

    def broken(self, x):
        return torch.full_like(x, bad) if self.width == 3 else whole(self, x)

    monkeypatch.setattr(Integer, "quantize", broken)
    _, insight = insight_of(mlp, pb.Quantize(seed={"linear": WEIGHTS}), Calibration(batches))
    for name in insight.tables:
        table = insight.table(name, NONE)
        for group in table.groups:
            assert [math.isfinite(score) for score in group.scores] == [False, True, True]
        assert len(table.excluded) == 2
        assert all("width=3" in unit and name in reason for unit, reason in table.excluded.items())


@pytest.mark.parametrize("name", ["diagonal", "directional"])
def test_without_a_gradient_the_reason_is_told(mlp, batches, name):
    class Detached(nn.Module):
        def __init__(self, inner, cut):
            super().__init__()
            self.inner, self.cut, self.head = inner, cut, nn.Linear(3, 3)

        def forward(self, x):
            y = self.inner(x)
            if self.cut == "output":
                return self.head(y).detach()
            return self.head(y.detach())

    space = pb.Quantize(seed={"linear": WEIGHTS})
    _, insight = insight_of(Detached(mlp, "output"), space, Calibration(batches))
    with pytest.raises(BadInput, match="no gradient reaches the layers"):
        insight.table(name, NONE)
    assert all(s > 0 for o, s in every_option(insight.table("kl", NONE)) if FLOAT not in o.values())
    _, insight = insight_of(Detached(mlp, "between"), space, Calibration(batches))
    with pytest.raises(BadInput, match=r"no gradient reaches a layer that the output depends on.*inner\.0"):
        insight.table(name, NONE)


def test_a_layer_that_nothing_depends_on_is_harmless(batches):
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.other = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x), self.other(x)

    _, insight = insight_of(Auxiliary(), pb.Quantize(seed={"linear": WEIGHTS}), Calibration(batches))
    for name in insight.tables:
        scores = {g.name: g.scores for g in insight.table(name, NONE).groups}
        assert scores["other"] == (0, 0, 0)
        assert scores["head"][0] > 0


def test_a_model_that_is_not_finite_is_refused(mlp, batches):
    with torch.no_grad():
        mlp[2].weight[0, 0] = math.nan
    _, insight = insight_of(mlp, pb.Quantize(by="name", seed={"0": WEIGHTS}), Calibration(batches))
    with pytest.raises(BadInput, match="not finite on the calibration rows"):
        insight.table("diagonal", NONE)


def bert():
    shape = {
        "vocab_size": 30,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "initializer_range": 0.5,
    }
    config = BertConfig(**shape, intermediate_size=12, max_position_embeddings=8, num_labels=3)
    return BertForSequenceClassification(config), {"attention_mask": torch.ones(4, 6, dtype=torch.long)}


def gpt2():
    config = GPT2Config(
        vocab_size=30, n_positions=8, n_embd=8, n_layer=1, n_head=2, use_cache=False, initializer_range=0.5
    )
    return GPT2LMHeadModel(config), {}


@pytest.mark.parametrize(("make", "classes"), [(bert, 3), (gpt2, 30)])
def test_transformers_with_batches_of_names_are_scored(make, classes):
    torch.manual_seed(0)
    model, more = make()
    model.eval()
    batches = tuple({"input_ids": torch.randint(0, 30, (4, 6)), **more} for _ in range(2))
    frozen = [p for i, p in enumerate(model.parameters()) if i % 3 == 0]
    for parameter in frozen:
        parameter.requires_grad_(False)
    bound, insight = insight_of(
        model, pb.Quantize(seed={"linear": WEIGHTS, "layernorm": DATA, "embedding": WEIGHTS}), Calibration(batches)
    )
    state, before = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    tables = {name: insight.table(name, NONE) for name in insight.tables}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    for name, table in tables.items():
        assert table.excluded == {}
        assert all(score >= 0 for _, score in every_option(table)), name
    assert 0 < tables["diagonal"].base <= math.log(classes) * 1.001
    prepared = bound.prepare()
    path, number_format = next(
        (path, f["weight"]) for path, f in bound.formats(bound.tree.at(0)).items() if "query" in path or "c_fc" in path
    )
    option = next({k: v} for k, v in bound.tree.at(0).items() if k.startswith(path.replace(".", "_")))
    expected = labels_seen = 0.0
    with torch.no_grad():
        for batch in batches:
            reference = prepared(**batch).logits.reshape(-1, classes)
            prepared.get_submodule(path).set_slots({"weight": number_format})
            changed = prepared(**batch).logits.reshape(-1, classes)
            prepared.get_submodule(path).set_slots({})
            expected += float(
                F.kl_div(changed.log_softmax(1), reference.log_softmax(1), log_target=True, reduction="sum")
            )
            labels_seen += len(reference)
    assert expected > 0
    assert score_of(tables["kl"], option) == pytest.approx(expected / labels_seen, rel=1e-3)


def test_the_callers_model_and_random_numbers_stay_as_they_are(mlp, batches, monkeypatch):
    whole = Integer.quantize
    monkeypatch.setattr(Integer, "quantize", lambda self, x: whole(self, x + 0.01 * torch.rand(x.shape)))
    model = nn.Sequential(mlp, nn.Dropout(0.5), nn.BatchNorm1d(3))
    model.train()
    model(torch.randn(9, 4)).sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    before = copy.deepcopy(model.state_dict())
    calibration = Calibration(batches)
    graph = pb.trace(model, batches[0])
    bound = pb.Quantize(seed={"linear": WEIGHTS}).bind(graph, calibration)
    insight = ModelInsight(bound, Evidence(graph, {}, calibration), lambda config: {}, SEED)
    state = torch.get_rng_state()
    again = ModelInsight(bound, Evidence(graph, {}, calibration), lambda config: {}, SEED)
    for name in insight.tables:
        found = insight.table(name, NONE)
        torch.rand(3)
        assert again.table(name, NONE) == found  # although its format draws
        torch.set_rng_state(state)
    insight.table("diagonal", NONE, bound.tree.at(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))


# Around a configuration


def test_around_a_configuration_a_quadratic_loss_is_predicted_exactly():
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(20, 4)
    wrapped = nn.Sequential(model).eval()
    bound, insight = insight_of(wrapped, pb.Quantize(seed={"linear": WEIGHTS}), Calibration((x,)))
    here, others = bound.tree.at(1), [bound.tree.at(i) for i in range(3)]
    prepared = bound.prepare()

    def harm(config):
        with torch.no_grad():
            return float(0.5 * (bound.apply(prepared, config)(x) - wrapped(x)).square().mean())

    for name in ("diagonal", "directional"):
        table = insight.table(name, NONE, here)
        for config in others:
            assert score_of(table, dict(config)) == pytest.approx(harm(config) - harm(here), abs=1e-6), name
        assert score_of(table, dict(here)) == 0


def test_around_a_configuration_a_users_loss_has_its_own_slope():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3)).eval(), torch.randn(20, 4)
    direction = torch.randn(3)
    calibration = Calibration((x,), None, lambda output, _: (output @ direction).mean())
    bound, insight = insight_of(model, pb.Quantize(seed={"linear": WEIGHTS}), calibration)
    here, prepared = bound.tree.at(0), bound.prepare()

    def outputs(config):
        with torch.no_grad():
            return bound.apply(prepared, config)(x) @ direction

    table = insight.table("directional", NONE, here)
    for i in range(3):
        change = outputs(bound.tree.at(i)) - outputs(here)
        expected = change.mean() + 0.5 * change.square().mean()  # the loss is linear: the second term is Fisher's
        assert score_of(table, dict(bound.tree.at(i))) == pytest.approx(float(expected), abs=1e-6)


def test_around_a_pruned_configuration_weights_come_back(mlp, batches):
    space = pb.Prune(by="name", seed={"0": {"sparsity": [0.0, 0.5, 0.9]}, "2": {"sparsity": [0.0, 0.5]}})
    bound, insight = insight_of(mlp, space, Calibration(batches))
    here = bound.tree.check({"0.sparsity": 0.9, "2.sparsity": 0.5})
    table = insight.table("directional", NONE, here)
    assert score_of(table, {"0.sparsity": 0.9}) == score_of(table, {"2.sparsity": 0.5}) == 0
    assert score_of(table, {"0.sparsity": 0.0}) != 0
    insight.table("kl", NONE)  # the private copy is whole again
    fresh = insight_of(mlp, space, Calibration(batches))[1]
    assert insight.table("kl", NONE) == fresh.table("kl", NONE)


def test_there_is_no_divergence_table_around_a_configuration(mlp, batches):
    bound, insight = insight_of(mlp, pb.Quantize(seed={"linear": WEIGHTS}), Calibration(batches))
    with pytest.raises(BadInput, match="no such score table around a configuration"):
        insight.table("kl", NONE, bound.tree.at(0))
    with pytest.raises(BadInput, match="no such score table"):
        insight.table("hessian", NONE)
