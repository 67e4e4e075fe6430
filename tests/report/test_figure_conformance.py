"""Every registered figure keeps every promise of the suite."""

import pytest

from paretobit.report.figures import FIGURES
from paretobit.report.runs import Run, Runs
from paretobit.testing import FigureConformance
from paretobit.testing.figure_conformance import small_study
from paretobit.training import Epoch


def epochs(number=4):
    return tuple(Epoch(i, 2.0 / i, 0.5, 2.1 / i, 0.5, 1e-3, 0.1, True) for i in range(1, number + 1))


class TestEveryFigure(FigureConformance):
    @pytest.fixture(params=FIGURES.names())
    def kind(self, request):
        return FIGURES[request.param]

    @pytest.fixture
    def runs(self, request, kind):
        """What needs more than a search without training is given it."""
        if kind.name == "learning_curves":
            return Runs([Run("training", None, epochs(), {"train.batch_size": 8, "seed": 0})])
        if kind.name in ("stages", "trial_curves"):
            return Runs([Run("trained", request.getfixturevalue("trained_study"))])
        study = small_study()
        if kind.name == "predicted":
            values = {str(trial.number): trial.metrics["loss"] * 1.5 for trial in study}
            study.record(predicted={"metric": "loss", "values": values})
        return Runs([Run("many", study)])

    @pytest.fixture(scope="class")
    def trained_study(self, net, digits):
        import paretobit as pb

        space = pb.Quantize(seed={"linear": {"name": "scaled_integer", "weight_width": [2, 4]}}, share="type")
        pipeline = {"steps": ["quantize", "evaluate", "finetune", "evaluate"], "finetune": {"max_epochs": 2}}
        rows = {name: tuple(part[:200] for part in digits[name]) for name in ("train", "val")}
        return pb.search(net, space=space, **rows, maximize="accuracy", pipeline=pipeline)
