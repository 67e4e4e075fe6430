"""Run what `experiments.md` tells of, and draw its pictures again.

    python docs/run_experiments.py                     # everything, about twenty minutes on one busy core
    python docs/run_experiments.py sparsity ptq_qat    # these alone
    python docs/run_experiments.py --pictures          # draw again from the runs that are there

The runs are in `runs/experiments/NAME`, the pictures in `docs/images/experiments`. What the joint search
is compared by is printed: the volume that each front dominates on the test split.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from paretobit.report.figures import Asked
from paretobit.studies.study import Study
from paretobit.wanted.hypervolume import hypervolume
from paretobit.workflow.report import report

DOCS = Path(__file__).parent
FILES = DOCS.parent / "examples/reports"
RUNS = DOCS.parent / "runs/experiments"
IMAGES = DOCS / "images/experiments"
SEEDS = (0, 1, 2)
FEWER = (0, 1)


@dataclass(frozen=True)
class Shot:
    """One picture.

    Attributes:
        file: Its name, without suffix.
        figure: As `paretobit report --figure` takes it.
        asked: Metric and knobs.
        runs: Names of the runs that it shows; empty: all of the experiment.
    """

    file: str
    figure: str
    asked: Asked = field(default_factory=Asked)
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """Some runs and their pictures.

    Attributes:
        runs: Name of a run to the name of its file and what is set otherwise.
        shots: The pictures.
    """

    runs: Mapping[str, tuple[str, tuple[str, ...]]]
    shots: tuple[Shot, ...]


def _runs(
    name: str, second: str, changes: tuple[str, ...], seeds: Sequence[int]
) -> dict[str, tuple[str, tuple[str, ...]]]:
    """A file as it is and with changes, for each of some seeds."""
    both: tuple[tuple[str, tuple[str, ...]], ...] = ((name, ()), (f"{name}_{second}", changes))
    return {f"{run}-{seed}": (name, (f"seed={seed}", *more)) for run, more in both for seed in seeds}


def _training(name: str) -> Experiment:
    """A setting of training, for both models."""
    knob = f"train.{'max_epochs' if name == 'epochs' else name}"
    shots = (
        Shot(f"{name}-accuracy", "knob", Asked(metric="accuracy", knob=knob)),
        Shot(f"{name}-loss", "knob", Asked(metric="loss", knob=knob)),
        Shot(f"{name}-curves", "trial_curves", Asked(knob=knob), (f"{name}_custom-0",)),
    )
    return Experiment(_runs(name, "custom", ("model.name=jsc-custom",), FEWER), shots)


def _single(name: str, *shots: Shot) -> Experiment:
    return Experiment({name: (name, ())}, shots)


JOINT = ("joint", "joint_widths", "joint_formats", "joint_sparsity")
PER_LAYER = ("search.space.quantize.share=name", "search.space.prune.share=name")
UNTRAINED = "search.pipeline.finetune.max_epochs=0"
NEVER_STOP = "search.pipeline.stop.min_epochs=9"
EXPERIMENTS: dict[str, Experiment] = {
    "batch_size": _training("batch_size"),
    "epochs": _training("epochs"),
    "learning_rate": _training("learning_rate"),
    "channel_multiplier_uniform": Experiment(
        _runs("channel_multiplier_uniform", "hls4ml", ("model.name=jsc-hls4ml",), SEEDS),
        (Shot("channel_multiplier_uniform", "knob", Asked(metric="accuracy")),),
    ),
    "channel_multiplier_grid": _single("channel_multiplier_grid", Shot("channel_multiplier_grid", "front")),
    "channel_multiplier_tpe": _single("channel_multiplier_tpe", Shot("channel_multiplier_tpe", "front")),
    "ptq_qat": _single("ptq_qat", Shot("ptq_qat", "stages", Asked(metric="accuracy", knob="linear.data_in"))),
    "sparsity": _single("sparsity", Shot("sparsity", "stages", Asked("accuracy", "linear.sparsity", "linear.method"))),
    "format_families": _single("format_families", Shot("format_families", "running_best_by_format")),
    "qat_3bit": Experiment(
        {"qat_3bit": ("qat_3bit", ()), "qat_3bit_ptq": ("qat_3bit", (UNTRAINED,))},
        (Shot("qat_3bit", "stages", Asked("accuracy", "linear.weight_width"), ("qat_3bit",)),),
    ),
    "joint": Experiment(
        {**{name: (name, ()) for name in JOINT}, "joint_per_layer": ("joint", PER_LAYER)},
        (Shot("joint", "hypervolume"), Shot("joint-front", "front", runs=("joint",))),
    ),
    "halving": Experiment(_runs("halving", "off", (NEVER_STOP,), SEEDS), (Shot("halving", "running_best"),)),
}


def run(name: str, file: str, changes: tuple[str, ...]) -> None:
    """Search from a file of the reports, with some keys set otherwise."""
    out = RUNS / name
    shutil.rmtree(out, ignore_errors=True)
    settings = [text for change in changes for text in ("--set", change)]
    command = ["paretobit", "search", "--config", str(FILES / f"{file}.toml"), "--out", str(out), *settings]
    print(" ".join(command), flush=True)
    subprocess.run([str(Path(sys.executable).parent / "paretobit"), *command[1:]], check=True)


def draw(experiment: Experiment) -> Iterator[str]:
    """Draw the pictures of an experiment; what they say of themselves."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for shot in experiment.shots:
        paths = [RUNS / name for name in shot.runs or experiment.runs]
        with TemporaryDirectory() as folder:
            drawn = report(paths, folder, names=[shot.figure], asked=shot.asked)
            (shown,) = drawn.shown
            few = Image.open(Path(folder) / shown.file).convert("RGB").quantize(64, dither=Image.Dither.NONE)
            few.save(IMAGES / f"{shot.file}.png", optimize=True)  # a third of the bytes
            yield f"{shot.file}: {shown.reading}"


def told_of_training(names: Mapping[str, object]) -> Iterator[str]:
    """Epochs that each run trained, and its best accuracy with the test accuracy of that trial."""
    for name in names:
        with Study.open(RUNS / name) as study:
            epochs = sum(len(trial.curve) for trial in study)
            judged = study.facts["test"]
            complete = [trial for trial in study if trial.state == "complete"]
            best = max(complete, key=lambda t: (t.metrics["accuracy"], str(t.number) in judged))
            test = f"{judged[str(best.number)]['accuracy']:.4f}" if str(best.number) in judged else "not judged"
            yield (
                f"{name}: {study.counts()}, {epochs} epochs, best validation accuracy "
                f"{best.metrics['accuracy']:.4f}, test {test}"
            )


def told_of_volumes(names: Mapping[str, object], cost: str = "bops") -> Iterator[str]:
    """The volume that the front of each run dominates on the test split: error × log2 of the cost."""
    for name in names:
        with Study.open(RUNS / name) as study:
            tests = study.facts["test"]
            points = [(1 - tests[str(t.number)]["accuracy"], math.log2(t.metrics[cost])) for t in study.front()]
            full = math.log2(study.baseline[cost])
            volumes = [f"{hypervolume(points, (worst, full)):.3f} below {worst}" for worst in (1.0, 0.1, 0.05)]
            yield f"{name}: {len(points)} points; volume {', '.join(volumes)}"


def main() -> None:
    """Run what is named, draw, and print what is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--pictures", action="store_true", help="run nothing, draw again")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    for name in asked.names or EXPERIMENTS:
        experiment = EXPERIMENTS[name]
        if not asked.pictures:
            for run_name, (file, changes) in experiment.runs.items():
                run(run_name, file, changes)
        told = [*draw(experiment), *told_of_training(experiment.runs)]
        told += [*told_of_volumes(experiment.runs)] if name == "joint" else []
        print("\n".join(told), flush=True)


if __name__ == "__main__":
    main()
