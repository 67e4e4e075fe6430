"""The one assembler: settings, and what only Python has, become a session."""

from dataclasses import dataclass, replace

from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.runtime import is_reference, seeded
from paretobit.session.engines import Execution
from paretobit.session.session import Session
from paretobit.spaces import Space
from paretobit.studies.study import Study
from paretobit.trials.vocabulary import check_before_work
from paretobit.workflow.assemble import choose_strategy, default_strategy, evidence_for, make_runners, make_space
from paretobit.workflow.pipeline import check_strategy, make_pipeline, steps_of
from paretobit.workflow.settings import Settings
from paretobit.workflow.subject import Given, Subject
from paretobit.workflow.train import check_trainable


@dataclass(frozen=True)
class Assembled:
    """Settings as they are recorded, model and data, and the session that is made of them.

    It is ready to run once the model is trained, where that comes first.
    """

    settings: Settings
    subject: Subject
    session: Session

    @property
    def trains_first(self) -> bool:
        """Whether the model is trained before the search: it has no weights, and trials do not train it."""
        pipeline = self.session.pipeline
        return not self.subject.has_weights and (pipeline is None or not pipeline.settings.from_nothing)


def assemble(settings: Settings, document: Document, given: Given | None = None, *, begun: bool = False) -> Assembled:
    """Everything a search needs, checked, whichever door it came through.

    A search that has `begun` needs no trials of another one.

    Raises:
        BadInput: Before any work, for whatever does not fit.
    """
    given, asked = given or Given(), settings.search
    with document.placing("search"):
        asked.check_words(measured_otherwise=given.evaluate is not None)
    wanted = asked.wanted()
    space = make_space(asked.space, document) if given.space is None else given.space
    if not isinstance(space, Space):
        raise BadInput("not a search space", key="space", found=space, allowed="paretobit.Quantize(...)")
    evaluate = asked.evaluate if given.evaluate is None else given.evaluate
    named = any(map(is_reference, asked.runners))
    subject = Subject.of(settings, given)
    if "val" not in subject.splits and evaluate is None and not named:
        raise BadInput("nothing to measure with: give val=(x, y) or evaluate=function", key="val")
    with seeded(settings.seed):  # a forward pass may draw
        rows = asked.calibration if given.calibration is None else given.calibration
        loss = asked.loss if given.loss is None else given.loss
        evidence = evidence_for(subject.model, subject.splits, given.example, rows, loss)
        if subject.data is not None:
            evidence = replace(evidence, augment=subject.data.augment)
        runners = make_runners(asked.runners or None, evidence, evaluate, wanted.directions, document)
    has_weights = subject.has_weights
    steps = steps_of(asked.pipeline, space, runners, document, settings.train, has_weights=has_weights)
    with document.placing("search.space"):
        bound = space.bind(evidence.graph, evidence.calibration)
    weighted = has_weights or steps is None or not steps.from_nothing
    pipeline, runners = make_pipeline(steps, space, bound, evidence, runners, wanted, has_weights=weighted)
    check_before_work(wanted, runners, asked.best)
    default = "optuna" if steps else default_strategy(bound, wanted, runners)
    name, strategy, n_trials = choose_strategy(
        asked.strategy, asked.n_trials, bound.tree, wanted, document, default=default
    )
    check_strategy(name, pipeline)
    session = Session(
        model=subject.model,
        evidence=evidence,
        space=bound,
        runners=runners,
        wanted=wanted,
        strategy=name,
        strategy_settings=strategy,
        n_trials=n_trials,
        seed=settings.seed,
        execution=Execution(asked.workers, asked.engine, asked.timeout, asked.trial_timeout, asked.max_failures),
        eval_mode=asked.eval_mode,
        best=asked.best,
        space_name=space.name,
        given=None if begun or asked.warm_start is None else Study.open(asked.warm_start),
        page=subject.page,
        pipeline=pipeline,
    )
    assembled = Assembled(settings, subject, session)
    if assembled.trains_first and subject.data is not None:
        check_trainable(subject.model, subject.data, settings.train)
    return assembled
