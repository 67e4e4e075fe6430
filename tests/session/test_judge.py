"""The test split judges: its numbers are those of plain torch, row by row, and nothing is judged twice."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from paretobit.document import Document
from paretobit.runtime import one_thread, seeded
from paretobit.session import judge as judging
from paretobit.session.judge import judge, optimism
from paretobit.session.session import Session
from paretobit.spaces.knobs import Config
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.training.per_row import RowResults
from paretobit.trials.runners import FunctionRunner
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble

TEXT = """
model = "jsc-tiny"
data = "digits"
[search]
maximize = "accuracy"
minimize = "bitops"
[search.space]
share = "type"
[search.space.seed.linear]
data_in_width = [3, 8]
weight_width = [2, 3, 4, 8]
"""


@pytest.fixture
def search(tmp_path: Path) -> Session:
    """Eight configurations of a network that has learnt a little."""
    (tmp_path / "search.toml").write_text(TEXT)
    document = Document.read(tmp_path / "search.toml")
    settings = Settings.from_document(document)
    found = assemble(settings, document).session
    x, y = found.splits["train"]
    optimizer = torch.optim.Adam(found.model.parameters(), 3e-2)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(found.model(x), y).backward()
        optimizer.step()
    found.model.zero_grad()
    return found


def searched(search: Session) -> Study:
    study = Study()
    with one_thread(), seeded(search.seed):
        search.begin(study).run()
    return study


def plain(model: nn.Module, search: Session) -> tuple[torch.Tensor, torch.Tensor]:
    """Which test rows a model gets right, and the loss of each, in plain torch."""
    x, y = search.splits["test"]
    with torch.no_grad():
        logits = model.eval()(x.clone())
    return logits.argmax(1) == y, nn.functional.cross_entropy(logits, y, reduction="none").double()


def test_both_numbers_and_the_comparison_are_those_of_plain_torch(search: Session) -> None:
    study = searched(search)
    judge(search, study)
    test, paired = study.facts["test"], study.facts["paired"]
    front = {str(trial.number): trial for trial in study.front()}
    assert set(test) == {"baseline", *front}
    assert set(paired) == set(front)
    assert len(front) >= 3
    right, loss = plain(search.delivery.build(None), search)
    assert test["baseline"] == {
        "accuracy": pytest.approx(right.double().mean().item(), abs=1e-12),
        "loss": pytest.approx(loss.mean().item(), rel=1e-6),
    }
    for number, trial in front.items():
        correct, lost = plain(trial.model(), search)
        worse, better = int((right & ~correct).sum()), int((correct & ~right).sum())
        change = paired[number]["accuracy"]
        assert (change["worse"], change["better"]) == (worse, better)
        assert change["p"] == pytest.approx(binomtest(worse, worse + better).pvalue if worse + better else 1.0)
        assert change["difference"] == pytest.approx(test[number]["accuracy"] - test["baseline"]["accuracy"])
        assert change["low"] <= change["difference"] <= change["high"]
        difference = lost - loss
        assert paired[number]["loss"]["difference"] == pytest.approx(difference.mean().item(), abs=1e-6)
        error = difference.std().item() / math.sqrt(len(difference))
        assert paired[number]["loss"]["error"] == pytest.approx(error, rel=1e-4)
    assert max(change["accuracy"]["worse"] for change in paired.values()) > 5  # the test has something to see


def test_what_was_judged_is_kept_and_only_new_points_are_run(search: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    told: list[tuple[int, int]] = []

    def counted(*arguments: object) -> RowResults:
        ran.append(1)
        return real(*arguments)

    real = judging.per_row
    monkeypatch.setattr(judging, "per_row", counted)
    study = searched(search)

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    judge(search, study, tell)
    points = 1 + len(study.front())
    assert len(ran) == points
    assert told == [(k, points) for k in range(1, points + 1)]
    before, ran[:], told[:] = dict(study.facts), [], []
    judge(search, study, tell)
    assert ran == []
    assert told == [(points, points)]
    assert study.facts == before

    dropped = str(study.front()[-1].number)
    study.record(**{fact: {k: v for k, v in before[fact].items() if k != dropped} for fact in ("test", "paired")})
    judge(search, study)
    assert len(ran) == 2  # the baseline to compare with, and the new point
    assert study.facts["test"] == before["test"]
    assert study.facts["paired"][dropped]["accuracy"] == before["paired"][dropped]["accuracy"]


def test_a_cut_leaves_the_points_judged_so_far(search: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(range(3))

    def cut(*arguments: object) -> RowResults:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*arguments)

    real = judging.per_row
    study = searched(search)
    with monkeypatch.context() as patch:
        patch.setattr(judging, "per_row", cut)
        patch.setattr(judging, "_POINTS_AT_ONCE", 1)
        with pytest.raises(KeyboardInterrupt):
            judge(search, study)
    assert len(study.facts["paired"]) == 2
    so_far = dict(study.facts["paired"])
    judge(search, study)
    assert so_far.items() <= study.facts["paired"].items()
    assert len(study.facts["paired"]) == len(study.front())


def test_a_winner_beside_the_front_is_judged_as_well(search: Session) -> None:
    search = dataclasses.replace(search, best="max loss")
    study = searched(search)
    winner = search.winner(study)
    assert winner is not None
    assert winner.number not in {trial.number for trial in study.front()}
    judge(search, study)
    assert str(winner.number) in study.facts["paired"]


def test_the_mode_of_the_measurement_is_that_of_the_trials(search: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[bool] = []

    def seen(model: nn.Module, *arguments: object) -> RowResults:
        modes.append(model.training)
        return real(model, *arguments)

    real = judging.per_row
    monkeypatch.setattr(judging, "per_row", seen)
    study = searched(search)
    judge(dataclasses.replace(search, eval_mode=False), study)
    assert set(modes) == {True}


def test_losses_that_are_not_finite_are_named_and_never_numbers(
    search: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def blown_up(*arguments: object) -> RowResults:
        calls.append(1)
        rows = real(*arguments)
        if len(calls) == 2:
            rows.loss[:3] = math.nan
        return rows

    real = judging.per_row
    monkeypatch.setattr(judging, "per_row", blown_up)
    study = searched(search)
    judge(search, study)
    first, *others = (str(trial.number) for trial in study.front())
    assert set(study.facts["test"][first]) == {"accuracy"}
    assert set(study.facts["paired"][first]) == {"accuracy", "loss_absent"}
    assert study.facts["paired"][first]["loss_absent"].startswith("losses that are not finite: 3 rows")
    assert all("loss" in study.facts["paired"][number] for number in others)


def test_a_function_has_no_rows_to_compare_and_the_study_says_so(search: Session) -> None:
    study = searched(search)
    judge(dataclasses.replace(search, runners=(FunctionRunner(search.evidence, len, {}),)), study)
    assert "a function does not" in study.facts["paired_absent"]
    assert "paired" not in study.facts
    alone = {name: pair for name, pair in search.splits.items() if name != "test"}
    evidence = dataclasses.replace(search.evidence, splits=alone)
    judge(dataclasses.replace(search, evidence=evidence), study)
    assert study.facts["paired_absent"] == "the data has no test split"


def test_the_price_of_choosing_is_shown_beside_what_the_splits_differ_by_themselves() -> None:
    front = [
        Trial(number, Config({}), "complete", {"accuracy": accuracy, "loss": loss})
        for number, accuracy, loss in ((4, 0.9, 0.3), (7, 0.8, 0.5))
    ]
    test = {
        "baseline": {"accuracy": 0.93, "loss": 0.25},
        "4": {"accuracy": 0.85, "loss": 0.4},
        "7": {"accuracy": 0.79, "loss": 0.5},
    }
    found = optimism(front, {"accuracy": 0.94, "loss": 0.2}, test)
    assert found["points"] == 2
    assert found["accuracy"] == {"front": pytest.approx(0.03), "baseline": pytest.approx(0.01)}
    assert found["loss"] == {"front": pytest.approx(0.05), "baseline": pytest.approx(0.05)}
    assert optimism([], {"accuracy": 0.94, "loss": 0.2}, test)["accuracy"] == {"baseline": pytest.approx(0.01)}
