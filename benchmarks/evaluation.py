"""Trials per plain float evaluation: what a search costs beyond running the model, and what it takes over.

Brute force over formats on one thread; accuracy, loss, cheap metrics and study writing included. A
plain float evaluation is what one writes by hand (forward, cross-entropy, accuracy) with the same
model, rows and batches. Both are timed in turns within one run, in seconds of the processor: what else
the machine does counts little. Of a block of trials the mean counts, as some take over more than others;
of the blocks the median, with the quartiles as its spread.

    python benchmarks/evaluation.py [--json] [--no-record] [--rows 10000] [--trials 4096]

Ends with exit code 1 and the names of the limits that were missed. ResNet-20 takes the published
checkpoint and its images from `PARETOBIT_TEST_DATA` where that is set, random ones otherwise.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from output import parser_of, show
from sklearn.datasets import load_digits
from timing import Ratio, calm, in_units, interruptions, per_call, ratio, seconds
from torch import Tensor, nn
from torch.nn import functional as F

import paretobit as pb
from paretobit.models import build
from paretobit.models.checkpoint import load_state, read_state
from paretobit.runtime import use_one_thread
from paretobit.strategies.brute_force import BruteForce
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import BasicEvaluation

CHOICES = [
    {"width": 16, "frac_width": 8},
    {"width": 8, "frac_width": 6},
    {"width": 8, "frac_width": 4},
    {"width": 4, "frac_width": 2},
    {"width": 6, "frac_width": 3},
]
BLOCK = 64
_DEEPEST = 5  # layers and slots that begin anew at once
LIMITS: dict[str, tuple[str, float]] = {
    "nested_trials_per_float_evaluation": (">=", 2.0),
    "random_trials_per_float_evaluation": (">=", 1.2),
    "ms_outside_sampler_and_model": ("<=", 0.2),
    "time_at_trial_10000_over_100": ("<=", 1.1),
    "resnet20_trials_per_float_evaluation": (">=", 0.8),
    "digits_cnn_trials_per_float_evaluation": (">=", 0.8),
}


def float_evaluation(model: nn.Module, x: Tensor, y: Tensor, rows: int) -> tuple[float, float]:
    """What one would write by hand."""
    loss, correct = 0.0, 0.0
    with torch.no_grad():
        for inputs, labels in zip(torch.split(x, rows), torch.split(y, rows), strict=True):
            logits = model(inputs)
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            correct += (logits.argmax(1) == labels).float().sum().item()
    return loss / len(x), correct / len(x)


@dataclass
class Case:
    """A model with its data, and the formats that its layers may take."""

    model: nn.Module
    x: Tensor
    y: Tensor
    layers: tuple[str, ...]
    choices: int = 4
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = Evidence(pb.trace(self.model, self.x[:1]), {}).rows_per_pass

    def float_seconds(self, repeats: int) -> float:
        """Median seconds of a plain evaluation."""
        return seconds(lambda: float_evaluation(self.model, self.x, self.y, self.rows), repeats)

    def search(self, order: str, trials: int, after: Callable[[int], None]) -> None:
        """Brute force in a run folder; `after` is called after every committed trial."""
        entry = {"name": "integer", "data_in": CHOICES[: self.choices], "weight": CHOICES[: self.choices]}
        with tempfile.TemporaryDirectory() as folder:
            pb.search(
                self.model,
                val=(self.x, self.y),
                space=pb.Quantize(by="type", seed=dict.fromkeys(self.layers, entry)),
                strategy={"name": "brute_force", "order": order},
                maximize="accuracy",
                minimize="bitops",
                n_trials=trials,
                out=Path(folder) / "run",
                on_trial=lambda progress: after(progress.done),
            )

    def ratio(self, order: str, trials: int, block: int) -> tuple[Ratio, float, float]:
        """Trials per float evaluation, ms of a trial, ms of an evaluation; timed in turns, block by block."""

        def plain() -> float:
            once = partial(float_evaluation, self.model, self.x, self.y, self.rows)
            return statistics.median(calm(lambda: per_call(once, 1)) for _ in range(5))

        floats, searched, trial = [plain()], list[float](), Trials(self.choices)

        def after(done: int) -> None:
            trial.end(done)
            if done % block == 0:
                searched.append(trial.mean())
                floats.append(plain())
            trial.begin()

        self.search(order, trials, after)
        ratios = ratio(1 / taken for taken in in_units(searched, floats))
        return ratios, 1e3 * statistics.median(searched), 1e3 * statistics.median(floats)


class Trials:
    """Seconds of trials one after the other, from those that nothing interrupted.

    In nested order a trial takes the longer the earlier the first layer that changes; long ones are
    interrupted more often. So the mean is taken over trials alike, each kind counted as often as it came.
    """

    def __init__(self, choices: int) -> None:
        self._choices = choices
        self._all: dict[int, list[float]] = {}
        self._calm: dict[int, list[float]] = {}
        self._start: tuple[float, int] | None = None

    def begin(self) -> None:
        """A trial begins."""
        self._start = time.process_time(), interruptions()

    def end(self, number: int) -> None:
        """It ends; trials are counted from 1."""
        if self._start is None:
            return
        taken, interrupted = time.process_time() - self._start[0], interruptions() - self._start[1]
        kind = 0  # how many layers begin anew with it
        while (number - 1) % self._choices ** (kind + 1) == 0 and number > 1 and kind < _DEEPEST:
            kind += 1
        self._all.setdefault(kind, []).append(taken)
        if not interrupted:
            self._calm.setdefault(kind, []).append(taken)

    def mean(self) -> float:
        """Of all since the last time."""
        total, count = 0.0, 0
        for kind, taken in self._all.items():
            calm_ones = self._calm.get(kind) or taken
            total, count = total + len(taken) * statistics.fmean(calm_ones), count + len(taken)
        self._all, self._calm = {}, {}
        return total / count


def tagger(rows: int, choices: int = 4) -> Case:
    """The jet tagger of three linear layers."""
    x, y = torch.randn(rows, 16), torch.randint(0, 5, (rows,))
    return Case(build("jsc-three-linear", (16,), 5).eval(), x, y, ("linear",), choices)


def resnet20(images: int) -> Case:
    """ResNet-20 for CIFAR-10."""
    model = build("resnet20", (3, 32, 32), 10)
    x, y = torch.randn(images, 3, 32, 32), torch.randint(0, 10, (images,))
    folder = os.environ.get("PARETOBIT_TEST_DATA")
    if folder:
        checkpoint = Path(folder) / "resnet20-12fca82f_cifar10.th"
        load_state(model, read_state(checkpoint), checkpoint)
        data = np.load(Path(folder) / "cifar10_lossless_subset.npz")
        pixels = torch.from_numpy(data["X_test"][:images]).permute(0, 3, 1, 2).float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (pixels - mean[:, None, None]) / std[:, None, None]
        y = torch.from_numpy(data["y_test"][:images]).long()
    return Case(model.eval(), x.contiguous(), y, ("conv2d", "linear"))


def digits_cnn() -> Case:
    """The small convolutional network on scikit-learn's digits."""
    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 16
    model = build("digits-cnn", (1, 8, 8), 10).eval()
    return Case(model, x.contiguous(), torch.from_numpy(digits.target).long(), ("conv2d", "linear"))


class Clock:
    """Adds up the seconds spent in functions."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._undo: list[tuple[type, str, Any]] = []

    def watch(self, owner: type, *names: str) -> None:
        """Time calls of these methods from now on."""
        for name in names:
            self._watch(owner, name, getattr(owner, name))

    def _watch(self, owner: type, name: str, method: Any) -> None:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - start

        setattr(owner, name, timed)
        self._undo.append((owner, name, method))

    def stop(self) -> None:
        """Leave the methods as they were."""
        for owner, name, method in self._undo:
            setattr(owner, name, method)


def outside(case: Case, trials: int) -> float:
    """Ms that a trial spends outside the sampler and the evaluation of the model: the least disturbed block."""
    clock, spent = Clock(), list[float]()
    clock.watch(BruteForce, "ask", "tell")
    clock.watch(BasicEvaluation, "measure")
    before = (time.process_time(), 0.0)

    def after(_: int) -> None:
        nonlocal before
        now = (time.process_time(), clock.seconds)
        spent.append(now[0] - before[0] - (now[1] - before[1]))
        before = (time.process_time(), clock.seconds)

    try:
        case.search("shuffled", trials, after)
    finally:
        clock.stop()
    return 1e3 * min(statistics.median(spent[i : i + BLOCK]) for i in range(1, len(spent) - BLOCK, BLOCK))


def slowing(case: Case, early: int, late: int, around: int = 50) -> float:
    """Median seconds of the trials around number `late` over those around `early`, each in float evaluations.

    The configurations come in random order and nothing is taken over, so that all trials do the same.
    """
    moments: dict[int, float] = {}
    units: dict[int, float] = {}

    def after(done: int) -> None:
        moments[done] = time.process_time()
        if done in (early - around, early + around, late - around, late + around):
            units[done] = case.float_seconds(200)

    case.search("shuffled", late + around, after)

    def at(number: int) -> float:
        numbers = range(number - around + 2, number + around + 1)
        unit = (units[number - around] + units[number + around]) / 2
        return statistics.median(moments[n] - moments[n - 1] for n in numbers) / unit

    return at(late) / at(early)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="of the tagger")
    parser.add_argument("--trials", type=int, default=4096, help="of the tagger, in each order")
    parser.add_argument("--images", type=int, default=128, help="of ResNet-20")
    parser.add_argument("--late", type=int, default=10_000, help="the late trial that is compared with trial 100")
    arguments = parser.parse_args()

    use_one_thread()
    torch.manual_seed(0)
    case = tagger(arguments.rows)
    case.float_seconds(50)
    result: dict[str, Any] = {}
    for order, name in (("nested", "nested"), ("shuffled", "random")):
        found, trial, plain = case.ratio(order, arguments.trials, 256)
        result[f"{name}_trials_per_float_evaluation"] = round(found.median, 3)
        result[f"{name}_spread"] = found.spread
        result[f"{name}_trial_ms"], result["float_evaluation_ms"] = round(trial, 4), round(plain, 4)
    result["ms_outside_sampler_and_model"] = round(outside(case, 1024), 4)
    result["time_at_trial_10000_over_100"] = round(slowing(tagger(1000, 5), 100, arguments.late), 3)
    for name, other, block in (("resnet20", resnet20(arguments.images), 6), ("digits_cnn", digits_cnn(), 25)):
        found, trial, plain = other.ratio("shuffled", 6 * block, block)
        result[f"{name}_trials_per_float_evaluation"] = round(found.median, 3)
        result[f"{name}_spread"] = found.spread
        result[f"{name}_trial_ms"], result[f"{name}_float_ms"] = round(trial, 2), round(plain, 2)
    result |= {"rows": arguments.rows, "trials": arguments.trials, "torch": torch.__version__}
    show(result, arguments)
    missed = [
        f"{name} is {result[name]}, the limit {relation} {limit}"
        for name, (relation, limit) in LIMITS.items()
        if not (result[name] >= limit if relation == ">=" else result[name] <= limit)
    ]
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
