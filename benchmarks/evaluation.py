"""Trials per plain float evaluation: what a search costs beyond running the model.

Brute force over the formats of `jsc-three-linear` on 10,000 rows, one thread, accuracy, loss, cheap
metrics and study writing included, divided by plain eager float evaluations (forward,
cross-entropy, accuracy) of the same model on the same tensors in the same run.

    python benchmarks/evaluation.py [--json] [--trials 512] [--rows 10000]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch
from output import show
from torch import Tensor, nn
from torch.nn import functional as F

import paretobit as pb
from paretobit.models import build
from paretobit.runtime import use_one_thread

FEATURES, CLASSES = 16, 5
CHOICES = [
    {"width": 16, "frac_width": 8},
    {"width": 8, "frac_width": 6},
    {"width": 8, "frac_width": 4},
    {"width": 4, "frac_width": 2},
]
SPACE = {"name": "integer", "data_in": CHOICES, "weight": CHOICES}
ROUNDS = 5


def float_evaluation(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """What one would write by hand."""
    with torch.no_grad():
        logits = model(x)
        loss = F.cross_entropy(logits, y).item()
        accuracy = (logits.argmax(1) == y).float().mean().item()
    return loss, accuracy


def float_seconds(model: nn.Module, x: Tensor, y: Tensor, repeats: int) -> float:
    """Median seconds of a plain evaluation."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        float_evaluation(model, x, y)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def search_seconds(model: nn.Module, x: Tensor, y: Tensor, trials: int, folder: Path) -> float:
    """Median seconds from one committed trial to the next."""
    moments: list[float] = []
    pb.search(
        model,
        val=(x, y),
        space=pb.Quantize(by="type", seed={"linear": SPACE}),
        strategy={"name": "brute_force", "order": "shuffled"},
        maximize="accuracy",
        minimize="bitops",
        n_trials=trials,
        out=folder,
        on_trial=lambda _: moments.append(time.perf_counter()),
    )
    return statistics.median(b - a for a, b in itertools.pairwise(moments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--trials", type=int, default=512)
    parser.add_argument("--rows", type=int, default=10_000)
    arguments = parser.parse_args()

    use_one_thread()
    torch.manual_seed(0)
    x, y = torch.randn(arguments.rows, FEATURES), torch.randint(0, CLASSES, (arguments.rows,))
    model = build("jsc-three-linear", (FEATURES,), CLASSES).eval()
    float_seconds(model, x, y, 50)
    ratios, floats, searches = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(ROUNDS):  # interleaved: a busy machine slows both sides
            before = float_seconds(model, x, y, 100)
            searched = search_seconds(model, x, y, arguments.trials, Path(folder) / str(i))
            after = float_seconds(model, x, y, 100)
            floats.append((before + after) / 2)
            searches.append(searched)
            ratios.append(floats[-1] / searched)
    result = {
        "trials_per_float_evaluation": round(statistics.median(ratios), 3),
        "float_evaluation_ms": round(1e3 * statistics.median(floats), 4),
        "trial_ms": round(1e3 * statistics.median(searches), 4),
        "rows": arguments.rows,
        "trials": arguments.trials,
        "torch": torch.__version__,
    }
    show(result, arguments.json)


if __name__ == "__main__":
    main()
