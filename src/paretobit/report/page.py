"""A report as a Markdown page: what was searched, what was found, and the figures with a sentence each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paretobit.errors import BadInput
from paretobit.report.figures.format_map import best_trial
from paretobit.report.runs import Run, Runs
from paretobit.report.tables import Row, baseline_row, best_trial_row, by_reason, cell, columns, front_rows, to_markdown
from paretobit.studies.study import Study

_MANY_KNOBS, _MANY_ROWS = 6, 60
_OF_A_TRAINING = ("model.name", "data.name", "seed")


@dataclass(frozen=True)
class Shown:
    """A figure on the page.

    Attributes:
        name: Registered name.
        file: Its file, as the page links to it.
        reading: What it shows, in words.
    """

    name: str
    file: str
    reading: str


def page(runs: Runs, shown: Sequence[Shown], missing: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        runs: What it is about.
        shown: The figures, in order.
        missing: Figure to the reason why there is none.
    """
    first = runs[0]
    if len(runs) > 1:
        parts = _several(runs)
    else:
        parts = _training(first) if first.study is None else _search(first, first.study)
    parts.append("## Figures\n")
    parts += [f"### {one.name}\n\n![{one.name}]({one.file})\n\n{one.reading}\n" for one in shown]
    if missing:
        rows = [{"Figures": ", ".join(names), "Why": why} for why, names in by_reason(missing).items()]
        parts.append(f"## Not drawn\n\n{to_markdown(rows)}")
    return "\n".join(parts)


def _search(run: Run, study: Study) -> list[str]:
    counts = ", ".join(f"{count} {state}" for state, count in study.counts().items() if count)
    about = {**_searched(run, study), "Trials": f"{len(study)}: {counts}"}
    parts = [f"# {run.name}\n", to_markdown([{"": key, "Value": value} for key, value in about.items()])]
    parts += ["## The float model\n", to_markdown([baseline_row(study)])]
    parts += ["## The front\n", _front(study), "## The best trial\n", _best(study)]
    notes = study.facts.get("notes", [])
    parts += ["## Notes\n", *(f"- {note}\n" for note in notes)] if notes else []
    failed = [trial for trial in study.trials if trial.state == "failed"]
    parts += ["## Failures\n", f"{len(failed)} of {len(study)} trials failed.\n"]
    if failed:
        parts.append(f"The first: {', '.join(str(trial.number) for trial in failed[:_MANY_ROWS])}.\n")
    return parts


def _searched(run: Run, study: Study) -> dict[str, Any]:
    """What was searched, and how; what was not recorded is left out."""
    facts = study.facts
    said = {
        "Model": run.settings.get("model.from_run") or run.settings.get("model.name"),
        "Data": run.settings.get("data.name"),
        "Space": facts.get("space", {}).get("name"),
        "Configurations in it": f"{int(facts['size']):,}" if "size" in facts else None,
        "Objectives": ", ".join(f"{o.direction} {o.label}" for o in study.objectives),
        "Constraints": ", ".join(map(str, study.constraints)) or "none",
        "Strategy": ", ".join(f"{k} = {v}" for k, v in run.strategy_settings.items()),
        "Seed": facts.get("seed"),
        "Rows measured on": ", ".join(f"{n:,} of {split}" for split, n in facts.get("samples", {}).items()),
        "Begun": facts.get("created"),
    }
    return {key: value for key, value in said.items() if value not in (None, "")}


def _front(study: Study) -> str:
    rows = [baseline_row(study), *front_rows(study, shown=True)]
    knobs = {name for trial in study.front() for name in trial.config}
    hidden = knobs if len(knobs) > _MANY_KNOBS else set()
    names = [name for name in columns(rows) if name not in hidden]
    text = to_markdown([{name: row.get(name) for name in names} for row in rows[: _MANY_ROWS + 1]])
    left_out = len(rows) - 1 - _MANY_ROWS
    if left_out > 0:
        text += f"\nThe first {_MANY_ROWS} of {len(rows) - 1} points; all of them are in front.csv.\n"
    if hidden:
        text += f"\nThe values of the {len(hidden)} knobs are in front.csv.\n"
    if any(name.startswith("test_") for name in names):
        text += "\nValidation rows chose these points; `test_` is what the untouched test split says.\n"
    return text


def _best(study: Study) -> str:
    question = study.facts.get("best")
    try:
        trial = best_trial(study)
    except BadInput as unanswered:
        return f"{unanswered}\n"
    asked = f"It answers `{question}`.\n" if question else "It has the best first objective.\n"
    return f"{asked}\n{to_markdown([best_trial_row(study, trial)])}"


def _several(runs: Runs) -> list[str]:
    rows: list[Row] = []
    for label, group in runs.groups.items():
        rows += [_row(label, run) for run in group]
    parts = [f"# {len(runs)} runs\n", to_markdown(rows)]
    if not runs.measured_alike:
        parts.append(
            "Runs of the same seed measured different models or other data: what differs between lines may be that.\n"
        )
    return parts


def _row(label: str, run: Run) -> Row:
    if run.study is None:
        return {"Line": label, "Folder": run.name, **_of_training(run)}
    study = run.study
    row: Row = {"Line": label, "Folder": run.name, "Strategy": run.strategy, "Seed": run.seed, "Trials": len(study)}
    row |= {"Failed": study.counts()["failed"], "Front": len(study.front())}
    for objective in study.objectives:
        values = [objective.value(t.metrics) for t in study.trials if t.state == "complete"]
        better = max if objective.direction == "maximize" else min
        row[f"Best {objective.label}"] = better(values) if values else None
    return row


def _training(run: Run) -> list[str]:
    said = {**{key: run.settings.get(key) for key in _OF_A_TRAINING}, **_of_training(run)}
    return [f"# {run.name}\n", to_markdown([{"": key, "Value": cell(value)} for key, value in said.items()])]


def _of_training(run: Run) -> Row:
    """The best epoch, and what it reached."""
    best = next(epoch for epoch in reversed(run.epochs) if epoch.is_best)
    return {
        "Epochs": len(run.epochs),
        "Best epoch": best.number,
        "Validation loss": best.val_loss,
        "Validation accuracy": best.val_accuracy,
        "Training loss": best.train_loss,
        "Training accuracy": best.train_accuracy,
        "Seconds": round(sum(epoch.seconds for epoch in run.epochs), 3),
    }
