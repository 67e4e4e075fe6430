"""Runners of BOPs, memory, devices and tables agree with the passes, and take part in a search."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.models.zoo import MODELS
from paretobit.passes.analysis import CostTable, Device, Roofline, cost, peak_memory
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, Candidate

FORMATS = {
    "seq_blocks.0": {"data_in": Integer(8), "weight": Integer(4)},
    "seq_blocks.4": {"data_in": Integer(6), "weight": Integer(2)},
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "edge.toml").write_text("bandwidth = 1e9\noverhead = 1e-6\n[peak]\n8x8 = 4e9\n32x32 = 1e9\n")
    (tmp_path / "table.csv").write_text(
        "op,data_format,weight_format,energy,cycles\n"
        "linear,integer,integer,0.2,1\nlinear,integer,*,1,2\nlinear,float,*,4.6,8\n"
    )
    return tmp_path


@pytest.fixture
def made(files):
    graph = pb.trace(MODELS["jsc-hls4ml"].build((16,), 5), torch.zeros(1, 16))

    def made(name, **settings):
        kind = RUNNERS[name]
        runner = kind(Evidence(graph, {}), kind.Settings(**settings))
        assert runner.cheap
        assert runner.kind == "hardware"
        assert runner.measure(Candidate({}, None)).keys() == {metric.name for metric in runner.metrics}
        return runner

    return made


def measure(runner):
    return runner.measure(Candidate(FORMATS, None))


def test_bops_are_those_of_the_cost_pass(made):
    runner = made("bops", skip_zeros=False)
    graph = runner.evidence.graph
    assert measure(runner) == {"bops": cost(graph, formats=FORMATS).total("bops")}
    sparse = measure(made("bops"))["bops"]
    assert sparse == pytest.approx(cost(graph, formats=FORMATS, sparsity="weights").total("bops"))
    assert sparse < measure(runner)["bops"]


def test_peak_memory_is_that_of_the_pass(made):
    runner = made("peak_memory")
    assert measure(runner) == {"peak_memory": peak_memory(runner.evidence.graph, FORMATS)}


def test_roofline_latency_is_that_of_the_pass_in_milliseconds(made, files):
    runner = made("roofline_latency", device=str(files / "edge.toml"), batch_size=4)
    roofline = Roofline(runner.evidence.graph, Device.read(files / "edge.toml"), 4)
    assert measure(runner) == {"roofline_latency": 1e3 * roofline.seconds(FORMATS)}
    assert measure(runner)["roofline_latency"] < runner.measure(Candidate({}, None))["roofline_latency"]


def test_a_cost_table_provides_its_columns(made, files):
    runner = made("cost_table", file=str(files / "table.csv"))
    expected = CostTable.read(files / "table.csv").total(runner.evidence.graph, FORMATS)
    assert measure(runner) == pytest.approx(expected)
    with pytest.raises(BadInput, match="no row for the operation 'linear' on data in 'log"):
        runner.measure(Candidate({"seq_blocks.0": {"data_in": pb.formats.make("log", width=4)}}, None))


def test_the_same_hardware_from_another_file_is_the_same_metric(made, files):
    first = made("roofline_latency", device=str(files / "edge.toml")).identity
    table = made("cost_table", file=str(files / "table.csv")).identity
    (files / "edge.toml").rename(files / "renamed.toml")
    assert made("roofline_latency", device=str(files / "renamed.toml")).identity == first
    (files / "renamed.toml").write_text("bandwidth = 2e9\npeak = {32x32 = 1e9}\n")
    assert made("roofline_latency", device=str(files / "renamed.toml")).identity != first
    (files / "table.csv").write_text((files / "table.csv").read_text().replace("4.6", "4.7"))
    assert made("cost_table", file=str(files / "table.csv")).identity != table


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bops", {}),
        ("peak_memory", {}),
        ("roofline_latency", {"device": "edge.toml"}),
        ("cost_table", {"file": "table.csv"}),
    ],
)
def test_costs_without_example_inputs_are_refused_at_the_door(name, settings):
    kind = RUNNERS[name]
    with pytest.raises(BadInput, match="give example inputs"):
        kind(Evidence(pb.trace(nn.Sequential(nn.Linear(4, 2))), {}), kind.Settings(**settings))


@pytest.mark.parametrize(("name", "key"), [("roofline_latency", "device"), ("cost_table", "file")])
def test_a_file_that_is_not_named_is_refused(made, name, key):
    with pytest.raises(BadInput, match=rf"no file is named \({name}.{key}\)"):
        made(name)


def test_hardware_metrics_take_part_in_a_search(net, rows, linear_space, files):
    runners = {
        "basic_evaluation": {},
        "bops": {},
        "peak_memory": {},
        "roofline_latency": {"device": str(files / "edge.toml")},
        "cost_table": {"file": str(files / "table.csv")},
    }
    study = pb.search(
        net,
        val=rows,
        space=linear_space,
        maximize="accuracy",
        minimize=["energy", "roofline_latency"],
        runners=runners,
        n_trials=6,
    )
    assert all(trial.metrics["energy"] <= study.baseline["energy"] for trial in study)
    assert all(0 < trial.metrics["bops"] <= study.baseline["bops"] for trial in study)


def test_a_tied_weight_is_stored_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    kind = RUNNERS["model_size"]
    runner = kind(Evidence(pb.trace(Tied(), torch.zeros(1, 8)), {}), kind.Settings())
    formats = {path: {"weight": Integer(4)} for path in "ab"}
    assert runner.measure(Candidate({}, None)) == {"model_size": 256}
    assert runner.measure(Candidate(formats, None)) == {"model_size": 32}
