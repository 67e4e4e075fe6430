"""The comparison of the third report: best error against trial for three strategies, drawn fairly.

Native brute force, Optuna's TPE and Optuna's brute force search the formats of a trained
`jsc-three-linear`. Nested loops visit the space in an arbitrary order, so a shuffled brute force and
random search are drawn beside them.

    python examples/lab3_comparison.py [--trials 300] [--out runs/lab3_comparison]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import paretobit as pb
from paretobit.data import DataSettings, load
from paretobit.models import build
from paretobit.report import draw_best_error
from paretobit.training import TrainSettings, fit

STRATEGIES = {
    "brute force": {"name": "brute_force"},
    "Optuna TPE": {"name": "optuna", "sampler": "tpe"},
    "Optuna brute force": {"name": "optuna", "sampler": "bruteforce"},
    "brute force, shuffled": {"name": "brute_force", "order": "shuffled"},
    "random": {"name": "optuna", "sampler": "random"},
}
LINEAR = {
    "name": "integer",
    "data_in_width": [4, 8, 16],
    "data_in_frac_width": [2, 4, 8],
    "weight_width": [2, 4, 8, 16],
    "weight_frac_width": [2, 4, 8],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/lab3_comparison"))
    arguments = parser.parse_args()

    names = ["npz:$PARETOBIT_TEST_DATA/pendigits.npz", "digits"]
    data = load(DataSettings.model_validate({"name": names})).flattened()
    model = build("jsc-three-linear", data.input_shape, data.num_classes)
    train, val, test = ((split.x, split.y) for split in data.splits)
    settings = TrainSettings(max_epochs=60, batch_size=128, learning_rate=2e-3, scheduler="cosine", label_smoothing=0.1)
    fit(model, train, val, settings)

    studies = {
        name: pb.search(
            model,
            train=train,
            val=val,
            test=test,
            space=pb.Quantize(by="type", seed={"linear": LINEAR}),
            maximize="accuracy",
            strategy=strategy,
            n_trials=arguments.trials,
            out=arguments.out / name.replace(", ", "-").replace(" ", "-"),
            resume=True,
        )
        for name, strategy in STRATEGIES.items()
    }
    for name, study in studies.items():
        best = study.best()
        print(f"{name:22} best error {1 - best.metrics['accuracy']:.4f} at trial {best.number}")
    picture = arguments.out / "best_error.png"
    draw_best_error(studies, picture)
    print(f"float error {1 - study.baseline['accuracy']:.4f}; picture in {picture}")


if __name__ == "__main__":
    main()
