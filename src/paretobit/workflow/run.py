"""Run what was assembled: train where that comes first, search, judge, keep the front and the winner."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from paretobit.document import Document
from paretobit.errors import StudyError
from paretobit.report import draw_front, front_rows, to_csv, trial_rows
from paretobit.runtime import one_thread, seeded
from paretobit.session.judge import OnJudged, judge
from paretobit.session.session import OnTrial, Session
from paretobit.storage import write_text_atomic
from paretobit.studies.study import Study
from paretobit.training import Epoch
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import Assembled
from paretobit.workflow.train import train


def run(
    assembled: Assembled,
    folder: RunFolder | None = None,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_trial: OnTrial | None = None,
    on_judged: OnJudged = lambda done, total: None,
    extend: bool = False,
) -> Study:
    """Run a search; one whose folder has a study goes on where it stopped.

    Without weights the model is trained first, into `float/`. With `extend`, a study of another space is
    set aside and its trials that are still valid are taken over.

    Args:
        assembled: The search.
        folder: Gets the study and the results; None: the study stays in memory and nothing is written.
        on_epoch: Called after every epoch of a training that comes first.
        on_trial: Called after every trial.
        on_judged: Called with the points judged on the test split and their number.
        extend: Go on in a changed space.

    Raises:
        BadInput: Before any work and before anything is written.
        StudyError: The study in the folder belongs to another search.
    """
    session, settings = assembled.session, assembled.settings
    begun = folder is not None and folder.begun
    if begun and folder is not None and not assembled.subject.has_weights:
        _check_training(settings, folder)
    session.check_given(trained=not assembled.trains_first)
    if folder is None:
        return _searched(assembled, None, on_trial, on_judged, extend)
    if not begun and any(runner.metrics_from_running for runner in session.runners):
        session.check_baseline()
    folder.create()
    with folder.locked():
        if not begun:
            folder.write_config(settings.resolved())
        train_first(assembled, folder, on_epoch)
        return _searched(assembled, folder, on_trial, on_judged, extend)


def train_first(assembled: Assembled, folder: RunFolder, on_epoch: Callable[[Epoch], None] | None = None) -> None:
    """Train the model into the folder's `float/`, where that comes before the search."""
    if assembled.trains_first:
        settings, data = assembled.settings, assembled.subject.data
        trained = train(settings, folder.float_model, data=data, resume=True, on_epoch=on_epoch)
        assembled.session.model.load_state_dict(trained.model.state_dict())


def _searched(
    assembled: Assembled, folder: RunFolder | None, on_trial: OnTrial | None, on_judged: OnJudged, extend: bool
) -> Study:
    """The study, run and judged; in a folder, results are written also where the run ends early."""
    session = assembled.session
    study = Study(folder.study if folder else None)
    try:
        with one_thread(), seeded(session.seed):
            begun = session.begin(study, extend=extend)
            if folder:
                folder.write_config(assembled.settings.resolved())
            begun.run(on_trial)
            judge(session, study, on_judged)
    except BaseException:
        if folder and "created" in study.facts:
            with suppress(Exception):  # the first error is the one to know of
                write_results(session, study, folder)
        study.close()
        raise
    if folder:
        study.close()
        write_results(session, study, folder)
    return study


def write_results(session: Session, study: Study, folder: RunFolder) -> None:
    """Write tables, picture and winner of a study into its run folder."""
    write_text_atomic(folder.trials, to_csv(trial_rows(study.trials)))
    write_text_atomic(folder.front, to_csv(front_rows(study)))
    draw_front(study, folder.picture)
    winner = session.winner(study)
    if winner is not None:
        saved = session.delivery.saved(study, winner)
        known = {"trial": winner.number, "config": dict(winner.config), "metrics": dict(winner.metrics)}
        replace(saved, page={**saved.page, **known}).write(folder.best)


def _check_training(settings: Settings, folder: RunFolder) -> None:
    """Refuse to train the model of a search that has begun in another way; what differs is named."""
    if not folder.config.exists():
        return
    recorded = Settings.from_document(Document.read(folder.config))
    for section in ("model", "data", "train"):
        there, here = (getattr(s, section).model_dump() for s in (recorded, settings))
        for key, value in here.items():
            if there[key] != value:
                raise StudyError(f"the study is another search's: its {section}.{key} is {there[key]}, not {value}")
