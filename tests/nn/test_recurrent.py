"""Recurrent layers: in full precision torch's own, in wide formats the same, in narrow ones a plain loop."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import paretobit as pb
from paretobit.formats import Integer, ScaledInteger
from paretobit.graph import trace
from paretobit.models import load, save
from paretobit.nn import TensorCache, instrument, parameter_uses, slots_of
from paretobit.passes.analysis import cost
from paretobit.passes.transform import QuantizeSettings, calibrate, freeze_scales, quantize

SLOTS = ("data_in", "weight", "bias")
WIDE = dict.fromkeys(SLOTS, Integer(28, 20))
NARROW = {"data_in": Integer(4, 2), "weight": Integer(3, 2), "bias": Integer(4, 3)}
CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:dropout option adds")


def quantised(module, slots):
    layer = instrument(copy.deepcopy(module), TensorCache())
    layer.set_slots({slot: f for slot, f in slots.items() if slot in layer.available_slots()})
    return layer


def tensors(result):
    """Every tensor of what a layer gives, in order."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result if part is not None for tensor in tensors(part)]


def one_step(kind, x, state, w_ih, w_hh, b_ih, b_hh, w_hr, q):
    """The next state of one row, as torch's documentation writes it; `q` is the format of the data."""
    given, carried = w_ih @ q(x) + b_ih, w_hh @ q(state[0]) + b_hh
    if kind == "LSTM":
        i, f, g, o = (given + carried).chunk(4)
        cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        return (hidden if w_hr is None else w_hr @ q(hidden)), cell
    if kind == "GRU":
        (xr, xz, xn), (hr, hz, hn) = given.chunk(3), carried.chunk(3)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        return ((1 - z) * (xn + r * hn).tanh() + z * state[0],)
    return ((given + carried).relu() if kind == "RNN_RELU" else (given + carried).tanh(),)


def operands(module, suffix, slots):
    """Weights and biases of one layer and direction through their formats: zeros where it has no bias."""
    found = []
    for slot, part in (("weight", "ih"), ("weight", "hh"), ("bias", "ih"), ("bias", "hh"), ("weight", "hr")):
        value = getattr(module, f"{slot}_{part}{suffix}", None)
        found.append(0.0 if value is None and slot == "bias" else value)
        if value is not None and slot in slots:
            found[-1] = slots[slot].quantize(value)
    return found


def by_hand(module, sequence, state, slots):
    """One row through all layers and directions: the output of every step, and the last states."""
    q = slots["data_in"].quantize if "data_in" in slots else lambda x: x
    ends = []
    for layer in range(module.num_layers):
        outputs = []
        for direction in ("", "_reverse") if module.bidirectional else ("",):
            now, steps = tuple(part[len(ends)] for part in state), []
            weights = operands(module, f"_l{layer}{direction}", slots)
            for x in reversed(sequence) if direction else sequence:
                now = one_step(module.mode, x, now, *weights, q)
                steps.append(now[0])
            outputs.append(torch.stack(steps[::-1] if direction else steps))
            ends.append(now)
        sequence = list(torch.cat(outputs, -1))
    return torch.stack(sequence), tuple(torch.stack(parts) for parts in zip(*ends, strict=True))


@st.composite
def layers(draw):
    """A layer in double precision: no rounding of float hides in a rounding of its formats."""
    kind = draw(st.sampled_from((nn.LSTM, nn.GRU, nn.RNN)))
    more = {"num_layers": draw(st.integers(1, 2))}
    more |= {name: draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    if kind is nn.LSTM:
        more["proj_size"] = draw(st.sampled_from((0, 3)))
    if kind is nn.RNN:
        more["nonlinearity"] = draw(st.sampled_from(("tanh", "relu")))
    torch.manual_seed(draw(st.integers(0, 1000)))
    return kind(3, 4, **more).double().eval()


def start(module, rows):
    """A state to start from, `(layers, rows, size)`."""
    parts = module.num_layers * (1 + module.bidirectional)
    hidden = torch.randn(parts, rows, module.proj_size or 4).double()
    return (hidden, torch.randn(parts, rows, 4).double()) if isinstance(module, nn.LSTM) else (hidden,)


@settings(max_examples=60, deadline=None)
@given(layers(), st.sets(st.sampled_from(SLOTS)), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_any_layer_computes_what_a_plain_loop_does(module, chosen, lengths, data):
    slots = {slot: NARROW[slot] for slot in chosen}
    form = data.draw(st.sampled_from(("padded", "packed", "one row")))
    lengths = lengths if form == "packed" else [lengths[0]] * (1 if form == "one row" else len(lengths))
    x, state = torch.randn(len(lengths), max(lengths), 3).double(), start(module, len(lengths))
    given_state = data.draw(st.booleans())
    state = state if given_state else tuple(torch.zeros_like(part) for part in state)
    rows = [by_hand(module, list(x[r, :n]), [s[:, r] for s in state], slots) for r, n in enumerate(lengths)]

    taken, hx = x if module.batch_first else x.transpose(0, 1), state
    if form == "packed":
        taken = pack_padded_sequence(taken, lengths, batch_first=module.batch_first, enforce_sorted=False)
    elif form == "one row":
        taken, hx = x[0], tuple(part[:, 0] for part in state)
    hx = hx if isinstance(module, nn.LSTM) else hx[0]
    output, ends = quantised(module, slots)(taken, hx) if given_state else quantised(module, slots)(taken)
    if form == "packed":
        assert isinstance(output, PackedSequence)
        output, found = pad_packed_sequence(output, batch_first=True)
        assert found.tolist() == lengths
    elif form == "one row":
        output, ends = output[None], [part[:, None] for part in tensors(ends)]
    else:
        output = output if module.batch_first else output.transpose(0, 1)
    for r, (steps, last) in enumerate(rows):
        assert torch.allclose(output[r, : lengths[r]], steps, atol=1e-9)
        for ours, wanted in zip(tensors(ends), last, strict=True):
            assert torch.allclose(ours[:, r], wanted, atol=1e-9)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("training", [False, True])
def test_full_precision_is_torchs_own_and_wide_formats_change_nothing(kind, training):
    torch.manual_seed(0)
    module = kind(4, 5, 2, bidirectional=True, batch_first=True, dropout=0.3).train(training)
    x = torch.randn(3, 6, 4)
    for slots, error in (({}, 0), ({"weight": WIDE["weight"]}, 1e-4), (WIDE, 1e-4)):
        with torch.backends.mkldnn.flags(enabled=False):
            torch.manual_seed(1)
            expected = tensors(module(x))
            torch.manual_seed(1)  # the draws of dropout between the layers are torch's
            found = tensors(quantised(module, slots)(x))
        for theirs, ours in zip(expected, found, strict=True):
            assert ours.shape == theirs.shape
            assert (ours - theirs).abs().max() <= error


def test_quantised_weights_alone_run_in_the_kernel_of_torch():
    module, x = nn.LSTM(4, 5, 2, bidirectional=True, proj_size=3).eval(), torch.randn(6, 3, 4)
    rounded = copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            parameter.copy_(NARROW[name.partition("_")[0]].quantize(parameter))
    layer = quantised(module, {slot: NARROW[slot] for slot in ("weight", "bias")})
    for theirs, ours in zip(tensors(rounded(x)), tensors(layer(x)), strict=True):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), module.parameters(), strict=True))


def test_a_weight_that_is_computed_is_quantised_as_it_is_read():
    with pytest.warns(FutureWarning, match="weight_norm"):
        module = nn.utils.weight_norm(nn.GRU(4, 5), "weight_hh_l0").eval()
    x = torch.randn(6, 3, 4)
    with torch.no_grad():
        module(x)
        slots = {"weight": NARROW["weight"]}
        kernel, steps = (quantised(module, {**slots, **more})(x)[0] for more in ({}, {"data_in": WIDE["data_in"]}))
        rounded = nn.GRU(4, 5)
        for name, parameter in rounded.named_parameters():
            value = getattr(module, name)
            parameter.copy_(NARROW["weight"].quantize(value) if "weight" in name else value)
        assert torch.equal(kernel, rounded(x)[0])
    assert torch.allclose(steps, kernel, atol=1e-4)


def test_a_wrong_input_is_refused_as_torch_refuses_it():
    layer = quantised(nn.LSTM(4, 5), NARROW)
    for x, hx, message in (
        (torch.randn(6, 3, 5), None, "input.size"),
        (torch.randn(6, 3, 4), (torch.zeros(1, 2, 5), torch.zeros(1, 3, 5)), "Expected hidden"),
    ):
        with pytest.raises(RuntimeError, match=message):
            layer(x, hx)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("more", [{}, {"bias": False}, {"nonlinearity": "relu"}], ids=str)
def test_a_cell_computes_one_step(kind, more):
    if "nonlinearity" in more and kind is not nn.RNNCell:
        return
    torch.manual_seed(0)
    module, x = kind(3, 4, **more).double(), torch.randn(5, 3).double()
    mode = {nn.LSTMCell: "LSTM", nn.GRUCell: "GRU"}.get(kind, f"RNN_{more.get('nonlinearity', 'tanh').upper()}")
    state = tuple(torch.randn(5, 4).double() for _ in range(2 if mode == "LSTM" else 1))
    for slots in ({}, {"weight": NARROW["weight"]}, NARROW):
        layer, weights = quantised(module, slots), operands(module, "", slots)
        q = slots["data_in"].quantize if "data_in" in slots else lambda x: x
        for carried in (None, state):
            begun = carried or tuple(torch.zeros_like(part) for part in state)
            found = tensors(layer(x, carried if carried is None or len(carried) > 1 else carried[0]))
            single = tensors(layer(x[2])) if carried is None else None
            for r in range(5):
                for at, wanted in enumerate(one_step(mode, x[r], [part[r] for part in begun], *weights, q)):
                    assert torch.allclose(found[at][r], wanted, atol=1e-9)
                    assert single is None or r != 2 or torch.allclose(single[at], wanted, atol=1e-9)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, *CELLS])
def test_it_trains_through_narrow_formats(kind, slot):
    torch.manual_seed(0)
    layer = quantised(kind(4, 5), {slot: NARROW[slot]}).train()
    x = torch.randn(*(() if kind in CELLS else (6,)), 3, 4, requires_grad=True)
    tensors(layer(x))[0].square().mean().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() > 0 or kind in CELLS  # a cell that starts at zero has no use for `weight_hh`


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRUCell])
def test_a_copy_has_weights_of_its_own(kind, travel):
    layer, x = quantised(kind(4, 5), {"weight": NARROW["weight"]}).eval(), torch.randn(3, 4)
    with torch.no_grad():
        before = tensors(layer(x))[0]
        other = travel(layer)
        assert torch.equal(tensors(other(x))[0], before)
        next(layer.parameters()).add_(1)
        assert torch.equal(tensors(other(x))[0], before)
        assert not torch.equal(tensors(layer(x))[0], before)


def test_every_weight_and_bias_goes_through_its_slot():
    assert slots_of(nn.LSTM(2, 3)) == slots_of(nn.GRUCell(2, 3)) == SLOTS
    assert slots_of(nn.GRU(2, 3, bias=False)) == slots_of(nn.LSTMCell(2, 3, bias=False)) == ("data_in", "weight")
    graph = trace(nn.Sequential(nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3)), torch.randn(5, 2, 4))
    shapes = {path: tuple(parameter.shape) for path, parameter in graph.model.named_parameters()}
    for stored in parameter_uses(graph).stored:
        (use,) = stored.uses
        assert use.slot == ("weight" if "weight" in stored.path else "bias")
        assert use.shape == shapes.pop(stored.path)
    assert not shapes
    formats = {"0": {"weight": Integer(4, 2), "bias": Integer(8, 4)}}
    sizes = {slot: sum(p.numel() for n, p in graph.model[0].named_parameters() if slot in n) for slot in SLOTS}
    assert cost(graph, formats=formats).total("stored_bytes") == sizes["weight"] / 2 + sizes["bias"]


def test_bitops_multiply_the_width_of_the_data_with_that_of_the_weights():
    graph = trace(nn.Sequential(nn.GRU(4, 6, batch_first=True)), torch.randn(2, 5, 4))
    report = cost(graph, formats={"0": {"data_in": Integer(8, 4), "weight": Integer(3, 2)}})
    assert report.total("macs") == 5 * 18 * (4 + 6)
    assert report.total("forward_bitops") == report.total("macs") * 8 * 3


class Packed(nn.Module):
    """Reads sequences of several lengths, and shows the states at their ends."""

    def __init__(self):
        super().__init__()
        self.table, self.rnn = nn.Embedding(11, 4), nn.LSTM(4, 5, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, 3)

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(self.table(ids), lengths, batch_first=True, enforce_sorted=False)
        output, (last, _) = self.rnn(packed)
        output, _ = pad_packed_sequence(output, batch_first=True)
        return self.head(torch.cat([output.mean(1), last[0], last[1]], -1))


def test_packed_sequences_count_by_their_lengths():
    lengths = torch.tensor([4, 2, 6])  # four in the mean, and in the first row
    graph = trace(Packed(), (torch.randint(11, (3, 6)), lengths))
    report = cost(graph)
    (row,) = (row for row in report.rows if row.op == "lstm")
    assert row.macs == 4 * 2 * (20 * 4 + 20 * 5)
    assert row.bits.data_elements == 4 * 4
    assert report.uncounted == ()


def test_a_scale_fixed_from_data_holds_the_states_too():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.GRU(4, 6, batch_first=True)).eval(), torch.randn(3, 20, 4) * 1e-3
    nn.init.constant_(model[0].bias_ih_l0, 2.0)
    states = model(x)[0]
    assert states.abs().max() > 0.5
    fixed = calibrate(model, [x], {"0": {"data_in": [ScaledInteger(8)]}})["0"]["data_in"][ScaledInteger(8)]
    assert fixed.scale * 127 == pytest.approx(float(states[:, :-1].abs().max()), rel=0.01)


def test_fixing_scales_leaves_each_weight_its_own():
    x = torch.randn(3, 20, 4)
    formats = {"data_in": ScaledInteger(8), "weight": ScaledInteger(4, per="channel")}
    graph = trace(nn.Sequential(nn.LSTM(4, 6, proj_size=3)).eval(), x)
    graph.model[0] = quantised(graph.model[0], formats)
    fixed, _ = freeze_scales(graph, [x])
    assert fixed.model[0].slots["weight"] == formats["weight"]
    assert fixed.model[0].slots["data_in"].scale is not None
    assert torch.equal(fixed.model[0](x)[0], quantised(graph.model[0], fixed.model[0].slots)(x)[0])


class Speech(nn.Module):
    """Convolution, recurrent encoder, frames to one vector."""

    def __init__(self):
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(8, 12, 3, padding=1), nn.LSTM(12, 10, 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, 4)

    def forward(self, x):
        return self.head(self.rnn(self.conv(x).relu().transpose(1, 2))[0].mean(1))


class Characters(nn.Module):
    """A language model whose embedding is its head."""

    def __init__(self):
        super().__init__()
        self.table, self.rnn = nn.Embedding(13, 8), nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 13, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.rnn(self.table(ids))[0])


class Translator(nn.Module):
    """The encoder's last state is the decoder's first; the decoder's cell is called step by step."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder, self.head = nn.GRU(8, 6, batch_first=True), nn.GRUCell(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        _, last = self.encoder(x.transpose(1, 2))
        state = last[0]
        for _ in range(3):
            state = self.decoder(state, state)
        return self.head(state)


class Ragged(nn.Module):
    """Frames end where the first feature says, and the state there is what counts."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        lengths = (x[:, 0] > 0).sum(1).clamp(min=1)
        packed = pack_padded_sequence(x.transpose(1, 2), lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.rnn(packed)[1][0][0])


@pytest.mark.parametrize("kind", [Speech, Translator, Ragged])
def test_a_search_delivers_what_it_measured(kind):
    torch.manual_seed(0)
    model, x, y = kind().eval(), torch.randn(120, 8, 7), torch.randint(4, (120,))
    entry = {"name": "scaled_integer", "weight_width": [2, 4, 8], "data_in_width": [3, 8], "bias_width": 8}
    seed = {"gru": entry, "gru_cell": entry} if kind is Translator else {"lstm": entry}
    goals = {"maximize": ["accuracy"], "minimize": ["bitops"]}
    space = pb.Quantize(seed=seed)
    study = pb.search(model, space=space, **goals, train=(x, y), val=(x, y), strategy="guided", n_trials=6)
    done = [trial for trial in study.trials if trial.state == "complete"]
    assert len(done) >= 2
    for trial in done:
        with torch.no_grad():
            found = (trial.model()(x).argmax(1) == y).double().mean()
        assert trial.metrics["accuracy"] == pytest.approx(float(found))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    for model, x in ((Characters(), torch.randint(13, (2, 7))), (Speech(), torch.randn(2, 8, 7))):
        entry = {"name": "scaled_integer", "weight_width": 4, "data_in_width": 6}
        model.eval()
        graph, info = quantize(trace(model, x), QuantizeSettings("type", default=entry))
        assert "rnn" in info["assignment"]
        assert "rnn" not in info["unsupported"]
        save(tmp_path / type(model).__name__, graph.model)
        loaded = load(tmp_path / type(model).__name__, model)
        assert torch.equal(loaded(x), graph.model(x))
        assert not torch.equal(loaded(x), model(x))
