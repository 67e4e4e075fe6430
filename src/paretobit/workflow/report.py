"""A report on one run or several: figures and a Markdown page in a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paretobit.errors import BadInput, located
from paretobit.report.figures import FIGURES, FORMATS, Asked, Picture, save
from paretobit.report.knob_columns import knob_named
from paretobit.report.metrics import metric_name
from paretobit.report.page import Shown, page
from paretobit.report.runs import Run, Runs
from paretobit.storage import write_text_atomic
from paretobit.workflow.run_folder import RunFolder

PAGE = "report.md"


@dataclass(frozen=True)
class Report:
    """What was written: a Markdown page, the figures shown, and why each of the others was not drawn."""

    page: Path
    shown: tuple[Shown, ...]
    missing: Mapping[str, str]


def report(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    picture_format: str = "png",
    names: Sequence[str] = (),
    asked: Asked | None = None,
) -> Report:
    """Write the figures that these runs support, and a page that shows and reads them.

    Everything is computed before anything is written.

    Args:
        paths: Run folders, study files, or folders of trainings.
        out: Folder to write to; unset: `report/` in the folder of the one run, the next free
            `runs/report` for several.
        picture_format: `png` or `svg`.
        names: Figures wanted; none: all there are. One that is wanted by name and cannot be drawn is
            an error, any other is listed with the reason.
        asked: Metric, knobs and trial to show.

    Raises:
        BadInput: No such run, figure, metric, knob or trial; runs with different objectives; an option
            that no wanted figure heeds.
        ParetoBitError: The folder cannot be written to.
    """
    asked = asked or Asked()
    if picture_format not in FORMATS:
        raise BadInput("no such kind of picture", key="--format", found=picture_format, allowed=FORMATS)
    with located(key="--figure"):
        kinds = [FIGURES[name] for name in dict.fromkeys(names)] or [entry.value for entry in FIGURES]
    taken = {option for kind in kinds for option in kind.takes}
    for option, value in vars(asked).items():
        if value is not None and option not in taken:
            heeding = [f"--figure {entry.name}" for entry in FIGURES if option in entry.value.takes]
            raise BadInput("none of these figures heeds it", key=f"--{option}", found=value, allowed=heeding)
    runs = Runs([Run.open(path) for path in _each_once(paths)])
    _check(runs, asked)
    pictures: dict[str, Picture] = {}
    missing: dict[str, str] = {}
    for kind in kinds:
        try:
            pictures[kind.name] = kind.picture(runs, asked)
        except BadInput as reason:
            if names:
                raise BadInput(f"no figure '{kind.name}': {reason}") from None
            missing[kind.name] = str(reason)
    return _write(_folder(runs, out), runs, pictures, missing, picture_format)


def figure_rows() -> list[dict[str, str]]:
    """What there is to draw: name, summary, what it heeds, and of how many runs."""
    return [
        {
            "name": entry.name,
            "what": entry.summary,
            "options": ", ".join(f"--{option}" for option in sorted(entry.value.takes)),
            "runs": "one or several" if entry.value.several else "one",
        }
        for entry in FIGURES
    ]


def _write(
    folder: RunFolder, runs: Runs, pictures: Mapping[str, Picture], missing: Mapping[str, str], suffix: str
) -> Report:
    folder.create()
    shown = []
    for name, picture in pictures.items():
        save(picture, folder.path / f"{name}.{suffix}")
        shown.append(Shown(name, f"{name}.{suffix}", picture.reading))
    write_text_atomic(folder.path / PAGE, page(runs, shown, missing))
    return Report(folder.path / PAGE, tuple(shown), missing)


def _folder(runs: Runs, out: str | Path | None) -> RunFolder:
    if out is not None:
        if Path(out).exists() and not Path(out).is_dir():
            raise BadInput("the folder of the report is a file", key="--out", found=str(out))
        return RunFolder(out)
    if len(runs) == 1 and runs[0].path is not None:
        return RunFolder(runs[0].path / "report")
    return RunFolder.choose(None, "report")


def _each_once(paths: Sequence[str | Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        place = path.resolve() if path.is_dir() else path.resolve().parent
        if place in found:
            raise BadInput("a run is given twice", key="RUN", found=str(path))
        found[place] = path
    return list(found.values())


def _check(runs: Runs, asked: Asked) -> None:
    """Refuse metrics, knobs and trials that the studies do not have; what is unknown is named."""
    for run in runs:
        if run.study is None:
            given = next((f"--{key}" for key, value in vars(asked).items() if value is not None), None)
            if given:
                raise BadInput("a training has no trials to choose from", key=given, found=run.name)
            continue
        with located(run.path):
            try:
                if asked.metric is not None:
                    metric_name(run.study, asked.metric)
                if asked.trial is not None:
                    run.study[asked.trial]
                for key, knob in (("knob", asked.knob), ("by", asked.by)):
                    if knob is not None:
                        knob_named(run.study, knob, key)
            except BadInput as error:
                error.key = f"--{error.key}"
                raise
