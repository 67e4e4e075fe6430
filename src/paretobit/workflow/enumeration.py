"""Every configuration of a space, measured once: the run folder of a brute-force search, and its table."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from paretobit.comparing.table import TEST, Table
from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.runtime import one_thread, seeded
from paretobit.session.session import OnTrial, Session
from paretobit.strategies.insight.insight import store
from paretobit.strategies.insight.model_insight import ModelInsight
from paretobit.training import Epoch
from paretobit.trials.runners import BasicEvaluation, Candidate
from paretobit.wanted.wanted import Wanted
from paretobit.workflow.run import run
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble

LIMIT = 200_000
TABLE = "table.npz"
_MOST_OUTER = 64


class TestEvaluation(BasicEvaluation):
    """Accuracy and loss on the test split, under names that say so."""

    __test__ = False
    metrics = tuple(replace(metric, name=TEST + metric.name) for metric in BasicEvaluation.metrics)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        return {TEST + name: value for name, value in super().measure(candidate).items()}


def enumerate_space(
    settings: Settings,
    document: Document,
    folder: RunFolder,
    *,
    limit: int = LIMIT,
    test: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_trial: OnTrial | None = None,
) -> Path:
    """Measure every configuration of a space, in the order in which neighbours share most, and keep a table.

    The folder becomes that of an ordinary brute-force search, which can be resumed; `table.npz` joins it.
    Constraints do not keep a configuration from being measured: the table keeps them as part of the
    question.

    Args:
        settings: Of the whole run; its strategy and number of trials are set aside.
        document: Where they came from.
        folder: A new run folder, or that of an enumeration that was cut short.
        limit: Configurations at most.
        test: Whether to measure accuracy and loss on the test split as well, as `test_accuracy` and
            `test_loss`.
        on_epoch: Called after every epoch of training.
        on_trial: Called after every trial.

    Returns:
        The table's file.

    Raises:
        BadInput: The space is larger than the limit, or there is no test split.
    """
    change = {"strategy": {"name": "brute_force"}, "n_trials": None, "timeout": None, "warm_start": None}
    settings = settings.model_copy(update={"search": settings.search.model_copy(update=change)})
    assembled = assemble(settings, document, begun=True)
    session = assembled.session
    if (size := session.space.tree.size) > limit:
        problem = "the space is too large to be enumerated: --limit allows more"
        raise BadInput(problem, key="search.space", found=f"{size:,} configurations", allowed=f"{limit:,}")
    measured = (*session.runners, _on_test(session)) if test else session.runners
    everything = replace(session, runners=measured, wanted=Wanted(session.wanted.objectives))
    study = run(replace(assembled, session=everything), folder, on_epoch=on_epoch, on_trial=on_trial)
    evidence, absent = gather_evidence(everything)
    made = Table.from_study(study, session.space.tree, evidence=evidence, evidence_absent=absent)
    path = folder.path / TABLE
    made.asking(session.wanted.constraints).save(path)
    return path


def gather_evidence(session: Session) -> tuple[dict[str, Any] | None, str]:
    """Every score table of every choice of the outer knobs, with the seconds each took; or why none."""
    with one_thread(), seeded(session.seed):
        bench = session.make_bench()

        def insight() -> ModelInsight:
            return ModelInsight(session.space, session.evidence, bench.cheap_metrics, session.seed)

        names, outer = insight().tables, insight().outer
        if not names:
            return None, "there were no calibration rows"
        if outer.size > _MOST_OUTER:
            return None, f"the knobs that change shapes have {outer.size:,} choices: {_MOST_OUTER} at most"
        gathered: dict[str, Any] = {"tables": {}}
        seconds: dict[str, dict[str, float]] = {}
        lacking = ""
        for name in names:
            fresh = insight()  # or a table computed together with another one would seem free
            took: dict[str, float] = {}
            try:
                for i in range(outer.size):
                    started = time.perf_counter()
                    fresh.table(name, outer.at(i))
                    took[outer.at(i).to_json()] = time.perf_counter() - started
            except BadInput as refused:  # guided does without it, too
                lacking = str(refused)
                continue
            stored = store(fresh, [outer.at(i) for i in range(outer.size)], [name])
            gathered, seconds[name] = {**stored, "tables": {**gathered["tables"], **stored["tables"]}}, took
    return ({**gathered, "seconds": seconds}, "") if seconds else (None, lacking)


def _on_test(session: Session) -> TestEvaluation:
    """The runner for the test split, on as many rows as there are."""
    evaluation = next((r for r in session.runners if isinstance(r, BasicEvaluation)), None)
    if evaluation is None:
        raise BadInput("the test split is measured by 'basic_evaluation', which is not in use", key="--test")
    settings = evaluation.settings.model_copy(update={"split": "test", "num_samples": None})
    return TestEvaluation(session.evidence, settings)
