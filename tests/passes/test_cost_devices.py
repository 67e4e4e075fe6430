"""Roofline latency is the formula on a device that a file describes; bad files are refused by name."""

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.graph import trace
from paretobit.passes.analysis import Device, Roofline, roofline

GOOD = """
name = "edge"
bandwidth = 1e6
overhead = 1e-4

[peak]
8x8 = 4e6
8x4 = 8e6
32x32 = 1e6
"""


@pytest.fixture
def device(tmp_path):
    path = tmp_path / "edge.toml"
    path.write_text(GOOD)
    return Device.read(path)


@pytest.fixture
def graph():
    layers = nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Flatten(), nn.Linear(100, 2, bias=False))
    return trace(layers, torch.zeros(3, 4))


def test_each_operation_is_bound_by_arithmetic_or_by_memory(device, graph):
    times = {time.node: time for time in roofline(graph, device)}
    first = times["0"]
    assert first.compute == pytest.approx(2 * 400 / 1e6)
    assert first.memory == pytest.approx(4 * (4 + 500 + 100) / 1e6)
    assert first.seconds == pytest.approx(4 * 604e-6 + 1e-4)
    assert times["1"].compute == 0
    assert times["1"].seconds == pytest.approx(4 * 200e-6 + 1e-4)
    assert times["2"].seconds == times["input_1"].seconds == 0  # a view
    assert times["3"].memory == pytest.approx(4 * (100 + 200 + 2) / 1e6)
    total = Roofline(graph, device).seconds()
    assert total == pytest.approx(sum(time.seconds for time in times.values()))


def test_formats_shorten_what_is_computed_and_what_is_moved(device, graph):
    formats = {"0": {"data_in": Integer(8), "weight": Integer(4), "bias": Integer(32)}}
    first = next(time for time in roofline(graph, device, formats=formats) if time.node == "0")
    assert first.compute == pytest.approx(2 * 400 / 8e6)
    assert first.memory == pytest.approx((4 * 1 + 400 / 2 + 100 * 4 + 100 * 4) / 1e6)


def test_weights_are_read_once_a_batch(device, graph):
    first = next(time for time in roofline(graph, device, batch=16) if time.node == "0")
    assert first.memory == pytest.approx(4 * (16 * 104 + 500) / 1e6)
    assert first.compute == pytest.approx(16 * 2 * 400 / 1e6)


def test_a_function_reads_its_weights_in_their_format(device):
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 100))

        def forward(self, x):
            return torch.matmul(x, self.weight)

    graph = trace(Scores(), torch.zeros(3, 4))
    formats = {"matmul": {"data_in": Integer(8), "weight": Integer(4)}}
    time = next(t for t in roofline(graph, device, formats=formats, batch=2) if t.op == "matmul")
    assert time.memory == pytest.approx((2 * 4 + 400 / 2 + 2 * 4 * 100) / 1e6)
    assert time.compute == pytest.approx(2 * 2 * 400 / 8e6)


def test_a_view_takes_time_only_where_it_has_to_copy(device):
    class Heads(nn.Module):
        def forward(self, x):
            return x.transpose(1, 2).reshape(-1, 12), x.reshape(-1, 12)

    graph = trace(Heads(), torch.zeros(2, 3, 4))
    times = [time.seconds for time in roofline(graph, device) if time.op in ("transpose", "reshape")]
    assert times == [0, pytest.approx(4 * 24e-6 + 1e-4), 0]


def test_an_embedding_reads_the_rows_it_looks_up(device):
    model = nn.Sequential(nn.Embedding(1000, 8))
    times = roofline(trace(model, torch.zeros(2, 3, dtype=torch.long)), device)
    assert times[1].memory == pytest.approx(4 * (3 + 3 * 8 + 3 * 8) / 1e6)


@pytest.mark.parametrize(
    ("pair", "peak"), [((8, 8), 4e6), ((8, 4), 8e6), ((4, 4), 8e6), ((4, 5), 4e6), ((9, 2), 1e6), ((32, 32), 1e6)]
)
def test_a_pair_that_is_not_listed_runs_as_the_next_wider_one(device, pair, peak):
    assert device.peak_for(*pair) == peak


def test_a_pair_that_is_too_wide_is_an_error_naming_the_operation(graph):
    device = Device(bandwidth=1.0, peak={"16x16": 1.0})
    with pytest.raises(BadInput, match=r"wide enough for '0' \(linear\) \(peak\): found '32x32'; allowed: 16x16"):
        roofline(graph, device)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("bandwidth", "bandwith"), r"unknown key \(.*edge.toml:3, bandwith\).*did you mean 'bandwidth'"),
        (("overhead =", "overhed ="), r"unknown key \(.*edge.toml:4, overhed\).*did you mean 'overhead'"),
        (("1e6\noverhead", "0\noverhead"), r"greater than 0 \(.*edge.toml:3, bandwidth\): found 0"),
        (("1e6\noverhead", "inf\noverhead"), r"finite number \(.*edge.toml:3, bandwidth\)"),
        (("overhead = 1e-4", "overhead = -1"), r"greater than or equal to 0 \(.*edge.toml:4, overhead\)"),
        (("8x8 =", "8by8 ="), r"not a pair of widths .*peak.8by8.*allowed: data x weight bits: 8x4"),
        (("8x8 = 4e6", "8x8 = 0"), r"not a speed .*peak.8x8.*operations per second above 0"),
        (("8x8 = 4e6", '8x8 = "fast"'), r"valid number.*edge.toml:7, peak.8x8\): found 'fast'"),
        ((GOOD[GOOD.index("[peak]") :], ""), r"missing key .*edge.toml.*peak"),
        (("[peak]", "[peak"), r"not valid TOML.*edge.toml:6"),
    ],
)
def test_a_bad_device_is_refused_with_file_line_and_key(tmp_path, change, message):
    path = tmp_path / "edge.toml"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(BadInput, match=message):
        Device.read(path)


def test_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        Device.read(tmp_path / "none.toml")
