"""Every registered runner keeps every promise of the suite, and so do functions of users."""

import pytest
import torch
from torch import nn

import paretobit as pb
from paretobit.testing import RunnerConformance
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, FunctionRunner

TIMED = ("latency",)
OF_LANGUAGE = ("perplexity",)


def settings_of(name, folder):
    """Of the runners that cannot do without."""
    (folder / "edge.toml").write_text("bandwidth = 1e9\noverhead = 1e-6\n[peak]\n8x8 = 4e9\n32x32 = 1e9\n")
    (folder / "table.csv").write_text("op,data_format,weight_format,energy,cycles\nlinear,*,*,0.2,1\n")
    files = {"roofline_latency": {"device": "edge.toml"}, "cost_table": {"file": "table.csv"}}
    return {key: str(folder / file) for key, file in files.get(name, {}).items()}


def classifier():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x, y = torch.randn(60, 6), torch.randint(0, 3, (60,))
    return Evidence(pb.trace(model, x[:1]), {"val": (x, y), "train": (x, y)})


def language_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 11)).eval()
    x = torch.randint(0, 11, (9, 5))
    return Evidence(pb.trace(model, x[:1]), {"val": (x, x.roll(-1, 1))})


class TestEveryRunner(RunnerConformance):
    @pytest.fixture(params=[name for name in RUNNERS.names() if name not in TIMED])
    def runner(self, request, tmp_path):
        kind, name = RUNNERS[request.param], request.param
        evidence = language_model() if name in OF_LANGUAGE else classifier()
        return kind(evidence, kind.Settings(**settings_of(name, tmp_path)))


class TestRunnersThatReadAClock(RunnerConformance):
    exact = False

    @pytest.fixture(params=TIMED)
    def runner(self, request):
        return RUNNERS[request.param](classifier(), RUNNERS[request.param].Settings(repeats=2, warmup=0))


class TestFunctions(RunnerConformance):
    @pytest.fixture
    def runner(self):
        evidence = classifier()
        x, y = evidence.split("val")

        def evaluate(model):
            return {"error": float((model(x).argmax(1) != y).double().mean())}

        return FunctionRunner(evidence, evaluate, {"error": "minimize"})
