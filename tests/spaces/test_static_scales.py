"""Scales of data are those that calibration rows need, fixed once for the weights that the model has."""

import pickle

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput
from paretobit.formats import FULL, ScaledInteger
from paretobit.passes.transform import calibrate

FORMATS = [
    ScaledInteger(8),
    ScaledInteger(4, signed=False),
    ScaledInteger(6, symmetric=False),
    ScaledInteger(4, calibration="mse"),
    ScaledInteger(5, calibration="percentile"),
    ScaledInteger(5, per="channel", axis=1),
]
SPACE = pb.Quantize(
    seed={"linear": {"data_in": [str(f) for f in FORMATS], "weight": [str(ScaledInteger(4, per="channel")), "NA"]}}
)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)).eval()


@pytest.fixture
def calibration():
    generator = torch.Generator().manual_seed(1)
    return Calibration(tuple(torch.randn(n, 6, generator=generator) * 3 for n in (20, 13)))


@pytest.fixture
def graph(net, calibration):
    return pb.trace(net, calibration.batches[0])


def carried(bound, index, prepared=None):
    model = bound.apply(bound.prepare() if prepared is None else prepared, bound.tree.at(index))
    return {path: dict(model.get_submodule(path).slots) for path in ("0", "2")}


def test_every_format_of_data_has_the_scale_of_the_pass(graph, calibration):
    bound = SPACE.bind(graph, calibration)
    prepared = bound.prepare()
    expected = calibrate(graph, calibration.batches, {path: {"data_in": FORMATS} for path in ("0", "2")})
    seen = set()
    for index in range(bound.tree.size):
        bare = bound.formats(bound.tree.at(index))
        for path, slots in carried(bound, index, prepared).items():
            wanted = bare[path]["data_in"]
            assert wanted.scale is None  # what is asked for says nothing of scales
            assert slots["data_in"] == expected[path]["data_in"][wanted]
            assert slots["data_in"].scale is not None
            assert slots["weight"] == bare[path].get("weight", FULL)  # parameters find theirs themselves
            seen.add((path, wanted))
    assert len(seen) == 2 * len(FORMATS)


@pytest.mark.parametrize("entry", ["scaled_integer(width=4, per='group', group_size=2)", "integer(width=4)"])
def test_what_has_no_fixed_scale_stays_as_it_is(graph, calibration, entry):
    bound = pb.Quantize(seed={"linear": {"data_in": [entry, "NA"]}}).bind(graph, calibration)
    for index in range(bound.tree.size):
        bare = bound.formats(bound.tree.at(index))
        for path, slots in carried(bound, index).items():
            assert slots["data_in"] == bare[path].get("data_in", FULL)


def test_dynamic_scales_and_absent_rows_leave_formats_alone(graph, calibration):
    dynamic = pb.Quantize(**{**SPACE.to_settings(), "scales": "dynamic"})
    for bound in (dynamic.bind(graph, calibration), SPACE.bind(graph)):
        assert {slots["data_in"].scale for slots in carried(bound, 0).values()} == {None}


def test_the_rows_run_through_the_float_model_whatever_is_applied(graph, calibration):
    bound, again = (SPACE.bind(graph, calibration) for _ in range(2))
    prepared = bound.prepare()
    forward = [carried(bound, i, prepared) for i in range(0, bound.tree.size, 7)]
    other = again.prepare()
    backward = [carried(again, i, other) for i in reversed(range(0, bound.tree.size, 7))]
    assert forward == backward[::-1]


def test_scales_follow_weights_that_change_after_binding(net, graph, calibration):
    bound = SPACE.bind(graph, calibration)
    before = carried(bound, 0)
    assert carried(bound, 0) == before
    state = {name: tensor * 2 for name, tensor in net.state_dict().items()}
    net.load_state_dict(state)
    after = carried(bound, 0)
    expected = calibrate(graph, calibration.batches, {"2": {"data_in": [FORMATS[0]]}})
    assert after["2"]["data_in"] == expected["2"]["data_in"][FORMATS[0]]
    assert after["2"]["data_in"].scale == pytest.approx(2 * before["2"]["data_in"].scale)
    assert after["0"]["data_in"] == before["0"]["data_in"]


def test_scales_follow_running_statistics_that_change(calibration):
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    bound = pb.Quantize(seed={"linear": {"data_in": ["scaled_integer(width=8)"]}}).bind(
        pb.trace(model, calibration.batches[0]), calibration
    )
    scale = bound.apply(bound.prepare(), bound.tree.at(0))[1].slots["data_in"].scale
    model[0].running_var.fill_(4.0)
    found = bound.apply(bound.prepare(), bound.tree.at(0))[1].slots["data_in"].scale
    assert found == pytest.approx(scale / 2, rel=1e-4)


def test_a_pickled_space_knows_its_scales_and_finds_the_others(graph, calibration):
    bound = SPACE.bind(graph, calibration)
    fixed = carried(bound, 0)
    again = pickle.loads(pickle.dumps(bound))
    runs = []
    again._graph.model.register_forward_hook(lambda *_: runs.append(1))
    assert carried(again, 0) == fixed
    assert runs == []
    last = bound.tree.size - 1
    assert carried(again, last) == carried(bound, last)


def test_a_function_has_scales_for_both_operands(calibration):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            return torch.matmul(self.layer(x), x.t())

    torch.manual_seed(0)
    model = Product().eval()
    graph = pb.trace(model, calibration.batches[0])
    entry = {"data_in": ["scaled_integer(width=6)"], "weight": ["scaled_integer(width=6)", "NA"]}
    bound = pb.Quantize(seed={"matmul": entry}).bind(graph, calibration)
    slots = bound.apply(bound.prepare(), bound.tree.at(0)).matmul.slots
    x = torch.cat(calibration.batches)
    with torch.no_grad():
        operands = {"data_in": model.layer(x), "weight": x.t()}
    for slot, number_format in slots.items():
        expected = ScaledInteger(6).calibrated(operands[slot])
        assert number_format.scale == pytest.approx(expected.scale, rel=1e-5), slot


def test_rows_that_are_not_finite_are_refused_by_layer(graph):
    bound = SPACE.bind(graph, Calibration((torch.full((4, 6), torch.inf),)))
    with pytest.raises(BadInput, match=r"0\.data_in"):
        bound.apply(bound.prepare(), bound.tree.at(0))


@pytest.mark.parametrize("workers", [2])
def test_workers_measure_what_one_process_does(net, workers):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(64, 6, generator=generator) * 3
    rows = (x, net(x.clone()).argmax(1))

    def metrics(**more):
        study = pb.search(
            net, space=SPACE, val=rows, minimize=["loss", "bitops"], strategy="random", n_trials=8, **more
        )
        return [(dict(t.config), {k: v for k, v in t.metrics.items() if "latency" not in k}) for t in study.trials]

    assert metrics() == metrics(workers=workers)
