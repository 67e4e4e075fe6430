"""`paretobit show`: front, best, one trial, two trials side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paretobit.cli.console import escaped, guarded, output, print_front, print_json, print_notes, print_table
from paretobit.cli.options import Json, ModelToo
from paretobit.errors import BadInput

if TYPE_CHECKING:
    from paretobit.studies.study import Study
    from paretobit.studies.trial import Trial


@guarded
def show(
    run: Annotated[Path, typer.Argument(help="A run folder or a study.db.")],
    trials: Annotated[
        list[str] | None, typer.Argument(metavar="[A B]", help="Two trials to compare: numbers, 'best' or 'float'.")
    ] = None,
    best: Annotated[
        str | None,
        typer.Option("--best", help="The trial that answers: 'min bitops s.t. accuracy >= baseline - 0.01'."),
    ] = None,
    trial: Annotated[int | None, typer.Option("--trial", help="One trial, spelt out layer by layer.")] = None,
    failures: Annotated[bool, typer.Option("--failures", help="Failed trials, with their tracebacks.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="The winner beside the float model.")] = False,
    model: ModelToo = None,
    json_: Json = False,
) -> None:
    """The front of a study; or two trials side by side, the best, one, the failures, the winner's layers."""
    from paretobit.report import baseline_row, front_rows
    from paretobit.studies.study import Study

    if trials:
        _check_two(trials, best is not None or trial is not None or failures or layers)
    if layers:
        _layers(run, model, json_)
        return
    with Study.open(run) as study:
        if trials:
            _compare(study, trials[0], trials[1], json_)
        elif best is not None or trial is not None:
            _trial(study, study.best(best) if best is not None else study[trial or 0], json_)
        elif failures:
            _failures(study, json_)
        elif json_:
            print_json(
                {"baseline": baseline_row(study), "front": front_rows(study), "trials": study.counts(), **_about(study)}
            )
        else:
            _summary(study)


def _check_two(trials: list[str], more: bool) -> None:
    """Refuse anything but two trials on their own."""
    if len(trials) != 2:
        raise BadInput("two trials are compared", key="A B", found=" ".join(trials), allowed="two")
    if more:
        raise BadInput("two trials are compared on their own", key="A B", found=" ".join(trials))


def _compare(study: Study, a: str, b: str, json_: bool) -> None:
    from paretobit.report.two_trials import compare_trials

    both = compare_trials(study, a, b)
    one, other = both.sides
    if json_:
        print_json(
            {
                "trials": [{"number": side.number, "state": side.state} for side in both.sides],
                "metrics": both.metrics,
                "knobs": both.knobs,
                "layers": both.layers,
            }
        )
        return
    print_table(both.metrics, f"{one.title} ({one.state}) and {other.title} ({other.state})")
    for rows, noun, alike in ((both.knobs, "knobs", both.alike[0]), (both.layers, "formats", both.alike[1])):
        if rows:
            print_table(rows, f"{len(rows)} {noun} differ, {alike} do not")
        else:
            output().print(f"All {alike} {noun} are the same")


def _summary(study: Study) -> None:
    about = _about(study)
    output().print("   ".join(f"{key}: {escaped(str(value))}" for key, value in about.items()))
    counts = ", ".join(f"{count} {state}" for state, count in study.counts().items() if count)
    output().print(f"{len(study)} trials: {counts or 'none'}")
    print_front(study)
    print_notes(study)
    question = study.facts.get("best")
    try:
        _best_table(study, study.best(question), f"Best: {question or 'first objective'}")
    except BadInput as unanswered:
        output().print(escaped(str(unanswered)))


def _about(study: Study) -> dict[str, Any]:
    return {
        "objectives": [f"{o.direction} {o.label}" for o in study.objectives],
        "constraints": [str(constraint) for constraint in study.constraints],
        "strategy": study.facts.get("strategy"),
        "seed": study.facts.get("seed"),
        "created": study.facts.get("created"),
    }


def _trial(study: Study, trial: Trial, json_: bool) -> None:
    from paretobit.report import best_trial_row, explain

    spelt_out = explain(study, trial)
    if json_:
        row = best_trial_row(study, trial)
        print_json(
            {**row, "state": trial.state, "error": trial.error, "knobs": dict(trial.config), "config": spelt_out}
        )
        return
    _best_table(study, trial, f"Trial {trial.number}: {trial.state}")
    print_json(spelt_out)
    if trial.error:
        output().print(escaped(trial.error))


def _best_table(study: Study, trial: Trial, title: str) -> None:
    from paretobit.report import best_trial_row

    if trial.state == "failed" or not trial.metrics:
        output().print(title)
        return
    print_table([best_trial_row(study, trial)], title)


def _failures(study: Study, json_: bool) -> None:
    failed = [trial for trial in study.trials if trial.state == "failed"]
    if json_:
        print_json([{"number": t.number, "config": dict(t.config), "error": t.error} for t in failed])
        return
    for trial in failed:
        output().print(f"trial {trial.number}: {escaped(str(dict(trial.config)))}\n{escaped(trial.error or '')}")
    output().print(f"{len(failed)} of {len(study)} trials failed")


def _layers(run: Path, model: str | None, json_: bool) -> None:
    from paretobit.report import comparison_rows, quantization_rows
    from paretobit.workflow.inspect import beside_float

    summary, comparison = beside_float(run, model)
    if json_:
        print_json({"types": quantization_rows(summary), "layers": comparison_rows(comparison)})
        return
    print_table(quantization_rows(summary))
    print_table(comparison_rows(comparison))
