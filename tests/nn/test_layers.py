"""A quantised layer is the torch layer on quantised operands, and exactly the torch layer at full precision."""

import copy
import pickle

import pytest
import torch
from many_cases import each
from torch import nn
from torch.nn import functional as F

from paretobit.errors import BadInput
from paretobit.formats import FULL, Integer, ScaledInteger
from paretobit.nn import LAYERS, Quantized, TensorCache, dot_product, dot_terms, instrument, slots_of, weight_rows
from paretobit.runtime import one_thread

DATA, WEIGHT, BIAS = Integer(8, 5), Integer(6, 4), Integer(5, 3, rounding="floor")


def affine(layer):
    """A BatchNorm as it is after training: nothing at its default."""
    for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
        if name == "running_var":
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.data.normal_()
    return layer


ACTIVATIONS = {
    "celu": lambda: nn.CELU(0.7),
    "elu": lambda: nn.ELU(0.5),
    "elu in place": lambda: nn.ELU(inplace=True),
    "gelu": lambda: nn.GELU(),
    "gelu of tanh": lambda: nn.GELU(approximate="tanh"),
    "glu": lambda: nn.GLU(),
    "hardshrink": lambda: nn.Hardshrink(0.4),
    "hardsigmoid": lambda: nn.Hardsigmoid(),
    "hardswish in place": lambda: nn.Hardswish(inplace=True),
    "hardtanh": lambda: nn.Hardtanh(-0.5, 0.8),
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "leaky_relu in place": lambda: nn.LeakyReLU(0.2, inplace=True),
    "log_sigmoid": lambda: nn.LogSigmoid(),
    "log_softmax": lambda: nn.LogSoftmax(-1),
    "mish": lambda: nn.Mish(),
    "relu6": lambda: nn.ReLU6(),
    "selu": lambda: nn.SELU(),
    "silu": lambda: nn.SiLU(),
    "silu in place": lambda: nn.SiLU(inplace=True),
    "sigmoid": lambda: nn.Sigmoid(),
    "softmax": lambda: nn.Softmax(0),
    "softmin": lambda: nn.Softmin(1),
    "softplus": lambda: nn.Softplus(beta=2),
    "softshrink": lambda: nn.Softshrink(0.3),
    "softsign": lambda: nn.Softsign(),
    "tanh": lambda: nn.Tanh(),
    "tanhshrink": lambda: nn.Tanhshrink(),
    "threshold": lambda: nn.Threshold(0.2, -1.0),
}
POOLINGS = {
    "avg_pool1d": (lambda: nn.AvgPool1d(3, 2, 1), 1),
    "avg_pool2d": (lambda: nn.AvgPool2d(2, count_include_pad=False, padding=1), 2),
    "avg_pool3d": (lambda: nn.AvgPool3d(2), 3),
    "max_pool1d": (lambda: nn.MaxPool1d(3, 2, 1, 2), 1),
    "max_pool2d": (lambda: nn.MaxPool2d(2, ceil_mode=True), 2),
    "max_pool3d": (lambda: nn.MaxPool3d(2), 3),
    "adaptive_avg_pool1d": (lambda: nn.AdaptiveAvgPool1d(4), 1),
    "adaptive_avg_pool2d": (lambda: nn.AdaptiveAvgPool2d((1, 3)), 2),
    "adaptive_avg_pool3d": (lambda: nn.AdaptiveAvgPool3d(2), 3),
    "adaptive_max_pool1d": (lambda: nn.AdaptiveMaxPool1d(4), 1),
    "adaptive_max_pool2d": (lambda: nn.AdaptiveMaxPool2d(1), 2),
    "adaptive_max_pool3d": (lambda: nn.AdaptiveMaxPool3d(2), 3),
    "lp_pool1d": (lambda: nn.LPPool1d(2, 2), 1),
    "lp_pool2d": (lambda: nn.LPPool2d(2, 2), 2),
    "lp_pool3d": (lambda: nn.LPPool3d(2, 2), 3),
    "softmax2d": (lambda: nn.Softmax2d(), 2),
}
CASES = {
    "linear": (lambda: nn.Linear(6, 4), (5, 6)),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False), (5, 6)),
    "linear on sequences": (lambda: nn.Linear(6, 4), (5, 3, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "conv1d groups": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (2, 4, 12)),
    "conv1d same": (lambda: nn.Conv1d(4, 6, 3, padding="same"), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 7, 8)),
    "conv2d unbatched": (lambda: nn.Conv2d(4, 6, 3), (4, 7, 8)),
    "conv2d groups": (lambda: nn.Conv2d(4, 8, (3, 2), (2, 1), (1, 2), (1, 2), groups=4), (2, 4, 9, 9)),
    "conv2d without bias": (lambda: nn.Conv2d(4, 6, 1, bias=False), (2, 4, 5, 5)),
    "conv2d reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 8)),
    "conv2d replicate": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), (2, 4, 7, 8)),
    "conv2d circular": (lambda: nn.Conv2d(4, 6, 3, padding=(1, 0), padding_mode="circular"), (2, 4, 7, 8)),
    "batch_norm1d": (lambda: affine(nn.BatchNorm1d(6)), (5, 6)),
    "batch_norm1d on sequences": (lambda: affine(nn.BatchNorm1d(6)), (5, 6, 3)),
    "batch_norm2d": (lambda: affine(nn.BatchNorm2d(4)), (5, 4, 3, 2)),
    "batch_norm1d not affine": (lambda: affine(nn.BatchNorm1d(6, affine=False)), (5, 6)),
    "batch_norm1d untracked": (lambda: affine(nn.BatchNorm1d(6, track_running_stats=False)), (5, 6)),
    "batch_norm1d averaging": (lambda: affine(nn.BatchNorm1d(6, momentum=None)), (5, 6)),
    "relu": (lambda: nn.ReLU(), (5, 6)),
    "relu in place": (lambda: nn.ReLU(inplace=True), (5, 6)),
    "conv1d circular": (lambda: nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"), (2, 4, 9)),
    "conv3d": (lambda: nn.Conv3d(4, 6, (1, 2, 3), (1, 2, 1), (0, 1, 2), (1, 1, 2), groups=2), (2, 4, 3, 6, 7)),
    "conv3d replicate": (lambda: nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate"), (2, 2, 4, 4, 5)),
    "conv3d without bias": (lambda: nn.Conv3d(2, 3, 1, bias=False), (2, 2, 2, 2, 2)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2, dilation=2), (2, 4, 5)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 0)), (2, 4, 5, 4)),
    "conv_transpose2d unbatched": (lambda: nn.ConvTranspose2d(4, 2, 2, bias=False), (4, 5, 4)),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(2, 4, 2, 2, groups=2), (2, 2, 3, 2, 3)),
    "batch_norm3d": (lambda: affine(nn.BatchNorm3d(4)), (3, 4, 2, 3, 2)),
    "layer_norm": (lambda: affine(nn.LayerNorm(6)), (5, 3, 6)),
    "layer_norm of two axes": (lambda: affine(nn.LayerNorm((3, 6), eps=1e-3, bias=False)), (5, 3, 6)),
    "layer_norm not affine": (lambda: nn.LayerNorm(6, elementwise_affine=False), (5, 6)),
    "group_norm": (lambda: affine(nn.GroupNorm(2, 6, eps=1e-3)), (5, 6, 4)),
    "group_norm not affine": (lambda: nn.GroupNorm(3, 6, affine=False), (5, 6, 2, 2)),
    "rms_norm": (lambda: affine(nn.RMSNorm(6)), (5, 3, 6)),
    "rms_norm not affine": (lambda: nn.RMSNorm((3, 6), elementwise_affine=False), (5, 3, 6)),
    "instance_norm1d": (lambda: affine(nn.InstanceNorm1d(4, affine=True)), (3, 4, 7)),
    "instance_norm1d unbatched": (lambda: affine(nn.InstanceNorm1d(4, affine=True)), (4, 7)),
    "instance_norm2d tracked": (
        lambda: affine(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
        (3, 4, 5, 3),
    ),
    "instance_norm3d not affine": (lambda: nn.InstanceNorm3d(4), (3, 4, 2, 3, 2)),
    "prelu": (lambda: nn.PReLU(init=0.3), (5, 6)),
    "prelu of channels": (lambda: affine(nn.PReLU(6)), (5, 6, 2)),
    **{name: (build, (5, 6)) for name, build in ACTIVATIONS.items()},
    **{name: (build, (2, 4, *(6, 8, 4)[:axes])) for name, (build, axes) in POOLINGS.items()},
}
every_layer = each("case", CASES)


def pair(case, seed=0):
    """A torch layer, its quantised twin, and an input."""
    torch.manual_seed(seed)
    build, shape = CASES[case]
    layer = build()
    return layer, instrument(copy.deepcopy(layer), TensorCache()), torch.randn(shape) * 2


def in_all(quantized, **formats):
    """Set those of the formats for which the layer has a slot."""
    quantized.set_slots({slot: f for slot, f in formats.items() if slot in quantized.available_slots()})


def same_state(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@every_layer
@pytest.mark.parametrize("training", [False, True])
def test_full_precision_is_torch_to_the_bit_in_output_gradients_and_statistics(case, training):
    layer, quantized, x = pair(case)
    layer.train(training)
    quantized.train(training)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for _ in range(3):
        outputs = [
            module(own * 1.0) for module, own in zip((layer, quantized), inputs, strict=True)
        ]  # times one: in-place layers refuse leaves
        for output in outputs:
            output.square().sum().backward()
        assert torch.equal(*outputs)
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    assert same_state(layer, quantized)
    for mine, theirs in zip(quantized.parameters(), layer.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


SPELT_OUT = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ReLU, nn.BatchNorm1d, nn.BatchNorm2d)


def with_operands(layer, weight, bias):
    """The torch layer itself, its parameters replaced."""
    reference = copy.deepcopy(layer)
    with torch.no_grad():
        for name, value in (("weight", weight), ("bias", bias)):
            if value is not None:
                getattr(reference, name).copy_(value)
    return reference


def by_hand(layer, x):
    """What the layer computes on operands that were quantised one by one."""

    def operand(slot, number_format):
        value = getattr(layer, slot, None)
        return None if value is None else number_format.quantize(value)

    x, weight, bias = DATA.quantize(x), operand("weight", WEIGHT), operand("bias", BIAS)
    if isinstance(layer, nn.Conv3d) or not isinstance(layer, SPELT_OUT):
        return with_operands(layer, weight, bias)(x)
    if isinstance(layer, nn.Linear):
        return x @ weight.t() if bias is None else F.linear(x, weight, bias)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        convolve = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
        padding = layer.padding
        if layer.padding_mode != "zeros":
            both = [side for axis in reversed(layer.padding) for side in (axis, axis)]
            x, padding = F.pad(x, both, mode=layer.padding_mode), 0
        return convolve(x, weight, bias, layer.stride, padding, layer.dilation, layer.groups)
    if isinstance(layer, nn.ReLU):
        return x.clamp(min=0)
    mean, var = layer.running_mean, layer.running_var
    return F.batch_norm(x, mean, var, weight, bias, mean is None, 0.0, layer.eps)


@every_layer
@pytest.mark.parametrize("grad", [False, True])
def test_integer_slots_are_torch_on_quantised_operands(case, grad):
    layer, quantized, x = pair(case)
    layer.eval()
    in_all(quantized.eval(), data_in=DATA, weight=WEIGHT, bias=BIAS)
    with torch.set_grad_enabled(grad):
        output = quantized(x.clone())
    assert torch.equal(output, by_hand(layer, x))
    assert not torch.equal(output, layer(x.clone()))


@every_layer
def test_each_slot_acts_on_its_own_operand_alone(case):
    layer, quantized, x = pair(case)
    layer.eval(), quantized.eval()
    for slot in quantized.available_slots():
        quantized.set_slots({slot: Integer(3, 1)})
        reference = copy.deepcopy(layer)
        if slot == "data_in":
            expected = reference(Integer(3, 1).quantize(x))
        else:
            with torch.no_grad():
                getattr(reference, slot).copy_(Integer(3, 1).quantize(getattr(layer, slot)))
            expected = reference(x.clone())
        assert torch.equal(quantized(x.clone()), expected), slot


@every_layer
def test_wide_integers_come_close_to_float(case):
    layer, quantized, x = pair(case)
    wide = Integer(28, 20)
    in_all(quantized.eval(), data_in=wide, weight=wide, bias=wide)
    with torch.no_grad():
        expected, output = layer.eval()(x.clone()), quantized(x.clone())
    assert (output - expected).abs().max() <= 1e-4 * expected.abs().max()


@every_layer
def test_back_at_full_precision_the_layer_is_float_again(case):
    layer, quantized, x = pair(case)
    layer.eval(), quantized.eval()
    with torch.no_grad():
        in_all(quantized, data_in=DATA, weight=WEIGHT, bias=BIAS)
        quantized(x.clone())
        quantized.set_slots({})
        assert torch.equal(quantized(x.clone()), layer(x.clone()))
    assert same_state(layer, quantized)


@every_layer
def test_slots_that_are_not_named_return_to_full_precision(case):
    _, quantized, _ = pair(case)
    in_all(quantized, data_in=DATA, weight=WEIGHT, bias=BIAS)
    quantized.set_slots({"data_in": WEIGHT})
    assert {slot: f for slot, f in quantized.slots.items() if f is not FULL} == {"data_in": WEIGHT}


def test_batch_statistics_are_those_of_torch_whatever_is_switched_after_building():
    layer, quantized, x = pair("batch_norm1d")
    for module in (layer, quantized):
        module.track_running_stats = False
    assert torch.equal(layer(x), quantized(x))
    assert same_state(layer, quantized)
    assert torch.equal(layer.eval()(x), quantized.eval()(x))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_follow_the_quantised_data(momentum):
    layer = nn.BatchNorm1d(6, momentum=momentum)
    quantized = instrument(copy.deepcopy(layer), TensorCache())
    quantized.set_slots({"data_in": DATA})
    for _ in range(3):
        x = torch.randn(9, 6)
        layer(DATA.quantize(x))
        quantized(x)
    assert same_state(layer, quantized)


def test_a_batch_norm_refuses_the_wrong_number_of_axes_as_torch_does():
    with pytest.raises(ValueError, match="expected 4D"):
        pair("batch_norm2d")[1](torch.zeros(2, 4))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("formats", [{}, {"data_in": DATA}], ids=["float", "integer"])
def test_a_relu_in_place_overwrites_its_input_and_no_other_relu_does(formats, grad):
    x = torch.randn(50)
    expected = F.relu(formats["data_in"].quantize(x) if formats else x)
    for inplace in (False, True):
        relu = instrument(nn.ReLU(inplace), TensorCache())
        relu.set_slots(formats)
        given = x.clone()
        with torch.set_grad_enabled(grad):
            output = relu(given)
        assert torch.equal(output, expected)
        assert torch.equal(given, expected if inplace else x)
        assert (output.data_ptr() == given.data_ptr()) == inplace


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("kind", [nn.ELU, nn.SiLU, nn.Hardswish, nn.Mish, nn.SELU, nn.LeakyReLU, nn.Hardtanh])
def test_so_does_every_other_activation_in_place(kind, grad):
    for inplace in (False, True):
        layer = instrument(kind(inplace=inplace), TensorCache())
        layer.set_slots({"data_in": DATA})
        x = torch.randn(50)
        given, expected = x.clone(), kind()(DATA.quantize(x))
        with torch.set_grad_enabled(grad):
            output = layer(given)
        assert torch.equal(output, expected)
        assert torch.equal(given, expected if inplace else x)


def test_what_reads_the_input_of_a_relu_in_place_reads_its_output():
    class Residual(nn.Module):
        def __init__(self, inplace):
            super().__init__()
            self.first, self.relu = nn.Linear(4, 4), nn.ReLU(inplace)

        def forward(self, x):
            x = self.first(x)
            return self.relu(x) + x

    model, x = Residual(True), torch.randn(9, 4)
    instrument(model.relu, TensorCache()).set_slots({"data_in": DATA})
    relu = F.relu(DATA.quantize(model.first(x)))
    assert torch.equal(model(x), 2 * relu)
    with torch.no_grad():
        assert torch.equal(model(x), 2 * relu)


def test_gradients_flow_through_a_quantised_relu_in_place():
    relu = instrument(nn.ReLU(inplace=True), TensorCache())
    relu.set_slots({"data_in": Integer(8, 4)})
    x = torch.tensor([-1.0, -0.3, 0.3, 1.0], requires_grad=True)
    relu(x * 2).sum().backward()
    assert x.grad.tolist() == [0, 0, 2, 2]


def test_the_table_leaves_out_no_layer():
    of_their_own = {
        nn.MultiheadAttention,
        nn.Embedding,
        nn.EmbeddingBag,
        nn.Bilinear,
        nn.RReLU,
        *(nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell),
    }  # other inputs, or random
    assert {type(build()) for build, _ in CASES.values()} | of_their_own == set(LAYERS.types)


def test_a_random_slope_is_torchs_on_quantised_data():
    x, layer = torch.randn(40), instrument(nn.RReLU(), TensorCache())
    layer.set_slots({"data_in": DATA})
    for training in (False, True):
        torch.manual_seed(0)
        output = layer.train(training)(x)
        torch.manual_seed(0)
        assert torch.equal(output, F.rrelu(DATA.quantize(x), training=training))


@every_layer
@pytest.mark.parametrize("training", [False, True])
def test_gradients_through_quantised_operands_are_finite(case, training):
    _, quantized, x = pair(case)
    in_all(quantized.train(training), data_in=DATA, weight=WEIGHT, bias=BIAS)
    x.requires_grad_()
    quantized(x * 1.0).square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in quantized.parameters())]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_scales_its_weights_by_output_channel(groups):
    layer = instrument(nn.ConvTranspose2d(4, 6, 3, groups=groups), TensorCache()).eval()
    per_channel = ScaledInteger(4, per="channel")
    layer.set_slots({"weight": per_channel})
    used = layer.parameter("weight")
    for group in range(groups):
        rows = slice(group * 4 // groups, (group + 1) * 4 // groups)
        for column in range(6 // groups):  # one output channel
            own = layer.weight[rows, column]
            assert torch.equal(used[rows, column], per_channel.quantize(own[None])[0])


@every_layer
def test_instrumenting_keeps_identity_parameters_and_hooks(case):
    layer = CASES[case][0]()
    calls, parameters = [], list(layer.parameters())
    layer.register_forward_hook(lambda *_: calls.append(1))
    quantized = instrument(layer, TensorCache())
    assert quantized is layer
    assert isinstance(quantized, Quantized)
    assert all(new is old for new, old in zip(quantized.parameters(), parameters, strict=True))
    quantized(torch.randn(CASES[case][1]))
    assert calls == [1]


def test_instrumenting_twice_keeps_the_formats():
    layer = instrument(nn.Linear(2, 2), TensorCache())
    layer.set_slots({"weight": WEIGHT})
    assert instrument(layer, TensorCache()).slots["weight"] == WEIGHT


def test_a_layer_that_is_shared_stays_shared():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    instrument(model[0], TensorCache()).set_slots({"weight": WEIGHT})
    assert model[0] is model[2]
    assert model[2].slots["weight"] == WEIGHT


def test_a_type_without_a_quantised_layer_is_refused():
    class Mine(nn.Linear):
        """A subclass that computes something else."""

        def forward(self, x):
            return super().forward(x) + 1

    for module in (nn.Flatten(), nn.Unfold(2), Mine(2, 2)):
        with pytest.raises(BadInput, match=rf"cannot be quantised: found '{type(module).__name__}'; allowed: Linear"):
            instrument(module, TensorCache())
        assert slots_of(module) == ()


@every_layer
def test_slots_are_the_operands_a_layer_has(case):
    layer, quantized, _ = pair(case)
    expected = ["data_in"] + [s for s in ("weight", "bias") if getattr(layer, s, None) is not None]
    assert list(slots_of(layer)) == list(slots_of(quantized)) == expected


def test_an_unknown_slot_is_refused_with_the_closest():
    relu, linear = (instrument(m, TensorCache()) for m in (nn.ReLU(), nn.Linear(2, 2)))
    with pytest.raises(BadInput, match=r"no such slot: found 'weight'; allowed: data_in"):
        relu.set_slots({"weight": WEIGHT})
    with pytest.raises(BadInput, match=r"found 'wieght'.*did you mean 'weight'"):
        linear.set_slots({"wieght": WEIGHT})
    assert all(f is FULL for f in linear.slots.values())


def test_layers_are_printed_in_the_words_of_the_field():
    linear = instrument(nn.Linear(16, 5), TensorCache())
    assert repr(linear) == "Linear(in_features=16, out_features=5, bias=True)"
    linear.set_slots({"bias": BIAS})
    assert repr(linear) == "LinearInteger(in_features=16, out_features=5, bias=True)"
    relu = instrument(nn.ReLU(inplace=True), TensorCache())
    relu.set_slots({"data_in": DATA})
    assert repr(relu) == "ReLUInteger(inplace=True)"
    gelu = instrument(nn.GELU(), TensorCache())
    gelu.set_slots({"data_in": DATA})
    assert repr(gelu) == "GELUInteger(approximate='none')"
    for kind in LAYERS.types:
        quantized = LAYERS.of_type(kind)
        assert issubclass(quantized, kind)


@every_layer
@pytest.mark.parametrize("travel", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_computes_the_same_and_prints_the_same(case, travel):
    _, quantized, x = pair(case)
    for formats in ({"data_in": DATA}, {}):
        quantized.eval().set_slots(formats)
        arrived = travel(quantized)
        with torch.no_grad():
            given = x.clone()
            assert torch.equal(arrived(given), quantized(x.clone()))
            assert torch.equal(given, x) or arrived.inplace
        assert repr(arrived) == repr(quantized)


def test_a_copy_has_parameters_formats_and_a_cache_of_its_own():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    cache = TensorCache(12345)
    for i in (0, 2):
        instrument(model[i], cache).set_slots({"weight": WEIGHT})
    x = torch.randn(3, 4)
    with torch.no_grad():
        before = model(x)
        clone = copy.deepcopy(model)
        clone[0].weight.zero_()
        clone[0].set_slots({})
        clone(x)
        assert torch.equal(model(x), before)
    assert clone[0]._cache is clone[2]._cache is not cache
    assert clone[0]._cache.budget == 12345


@one_thread()
def test_training_through_quantised_layers_moves_the_weights_and_lowers_the_loss():
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x @ torch.randn(8, 3)).argmax(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(inplace=True), nn.Linear(16, 3))
    for layer in model:
        in_all(instrument(layer, TensorCache()), data_in=Integer(8, 5), weight=Integer(6, 4), bias=Integer(6, 4))
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    model.eval()
    with torch.no_grad():
        output = model(x)
    assert torch.equal(output, model(x))  # cached weights are those of the last step


DOT_PRODUCTS = [case for case in CASES if case.startswith(("linear", "conv"))]


@pytest.mark.parametrize("case", DOT_PRODUCTS)
def test_a_row_of_weights_holds_those_that_one_output_adds_up(case):
    layer, quantized, x = pair(case)
    index = torch.arange(layer.weight.numel()).view_as(layer.weight)
    rows = weight_rows(layer, index)
    batched = x.dim() == layer.weight.dim()
    outputs = layer(x).movedim(-1 if isinstance(layer, nn.Linear) else int(batched), 0)
    assert len(rows) == len(outputs)
    for output, row in zip(outputs, rows, strict=True):
        (gradient,) = torch.autograd.grad(output.sum(), layer.weight, retain_graph=True)
        assert set(index[gradient != 0].tolist()) == set(row.tolist())
    assert dot_terms(layer) == dot_terms(quantized) == rows.shape[1]


@pytest.mark.parametrize("case", DOT_PRODUCTS)
def test_a_dot_product_is_the_layers_own_on_other_operands(case):
    layer, quantized, x = pair(case)
    in_all(quantized, data_in=DATA, weight=WEIGHT)
    other = torch.randn_like(layer.weight)
    with torch.no_grad():
        expected = with_operands(layer, other, None)(x)
        assert torch.equal(dot_product(quantized, x, other, layer.bias), expected)


def test_what_is_no_dot_product_has_no_rows_and_no_terms():
    for layer in (nn.ReLU(), nn.LayerNorm(3), nn.Embedding(3, 2)):
        assert dot_terms(layer) is None
        with pytest.raises(BadInput, match="no dot product"):
            dot_product(layer, torch.ones(3), torch.ones(3), None)
