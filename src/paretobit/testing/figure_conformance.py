"""The conformance suite of figures: what every kind of picture promises, as a class of tests to inherit."""

import copy
import functools
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.report.figures import Asked, Kind, drawn, save
from paretobit.report.runs import Run, Runs
from paretobit.spaces import Quantize
from paretobit.studies.study import Study
from paretobit.testing.inputs import asked_for
from paretobit.workflow.api import search


class FigureConformance:
    """Tests that hold for every kind of picture; one fixture says which.

    Example::

        class TestMyFigure(FigureConformance):
            @pytest.fixture
            def kind(self):
                return FIGURES["my_figure"]

    The fixture `runs` is a search with many trials; give other runs to a figure that needs them.
    """

    kind = asked_for("kind", "a `Kind`")

    @pytest.fixture
    def runs(self) -> Runs:
        """Runs that have such a picture."""
        return Runs([Run("many", small_study())])

    def test_it_is_a_figure_of_matplotlib_and_says_what_it_shows(self, kind: Kind, runs: Runs) -> None:
        from matplotlib.figure import Figure

        picture = kind.picture(runs, Asked())
        figure = drawn(picture)
        assert isinstance(figure, Figure)
        assert figure.axes
        assert picture.reading.strip()
        assert kind.summary.endswith(".")

    def test_the_same_runs_give_the_same_bytes(self, kind: Kind, runs: Runs, tmp_path: Path) -> None:
        files = [tmp_path / f"{i}.svg" for i in range(2)]
        for file in files:
            save(kind.picture(runs, Asked()), file)
        assert files[0].read_bytes() == files[1].read_bytes()

    @pytest.mark.parametrize("trials", ["one", "unmeasured", "failed"])
    def test_few_or_broken_trials_are_drawn_or_refused_with_the_reason(self, kind: Kind, trials: str) -> None:
        self._drawn_or_refused(kind, Runs([Run(trials, small_study(trials))]))

    def test_what_is_not_there_is_refused_by_name(self, kind: Kind, runs: Runs) -> None:
        wrong = {"metric": "no_metric", "knob": "no_knob", "by": "no_knob", "trial": 10**6}
        for option in kind.takes:
            with pytest.raises(BadInput, match=r"."):
                drawn(kind.picture(runs, Asked(**{option: wrong[option]})))  # type: ignore[arg-type]

    def test_several_runs_are_drawn_only_where_that_is_said(self, kind: Kind, runs: Runs) -> None:
        two = Runs([*runs, *runs])
        if kind.several:
            self._drawn_or_refused(kind, two)
        else:
            with pytest.raises(BadInput):
                kind.picture(two, Asked())

    def test_nothing_outside_the_picture_changes(self, kind: Kind, runs: Runs) -> None:
        import matplotlib as mpl

        style, facts = dict(mpl.rcParams), [copy.deepcopy(run.study.facts) for run in runs if run.study]
        drawn(kind.picture(runs, Asked()))
        assert dict(mpl.rcParams) == style
        assert [run.study.facts for run in runs if run.study] == facts

    def _drawn_or_refused(self, kind: Kind, runs: Runs) -> None:
        with suppress(BadInput):  # it says why there is no such picture
            assert drawn(kind.picture(runs, Asked())).axes


@functools.cache
def small_study(trials: str = "many") -> Study:
    """A search of two layers alike: `many` (6) trials of two families, `one`, all `unmeasured` or `failed`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(60, 6)
    entry = {"name": ["integer", "log"], "weight_width": [3, 4, 6], "integer": {"weight_frac_width": 2}}
    calls = []

    def measured(candidate: nn.Module) -> dict[str, float]:
        calls.append(candidate)
        if trials == "failed" and len(calls) > 1:
            raise RuntimeError("on purpose")
        rows = candidate(x)
        return {"accuracy": float((rows.argmax(1) == y).double().mean()), "loss": float((rows - full).abs().mean())}

    with torch.no_grad():
        full = model.eval()(x)
        y = full.argmax(1)
        return search(
            model,
            example=x[:1],
            evaluate=measured,
            space=Quantize(seed={"linear": entry}, share="type"),
            maximize="accuracy",
            minimize="bitops",
            subject_to="bitops <= 1" if trials == "unmeasured" else (),
            n_trials=1 if trials == "one" else 6,
            max_failures=None,
        )
