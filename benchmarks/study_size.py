"""A study of 100,000 brute-force trials: its size, how soon it opens, and whether late trials cost more.

    python benchmarks/study_size.py [--json] [--no-record] [--trials 100000]

Trials are measured by cheap runners alone, each in a commit of its own, over a space of 10^25 and more
configurations. Seconds are the processor's; those of late trials are compared with those of early ones, each in
the pace of the machine around them. Ends with exit code 1 and the names of the limits that were missed.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from output import parser_of, show
from timing import cpu, in_units, seconds

import paretobit as pb
from paretobit.models import build
from paretobit.runtime import use_one_thread

WIDTHS = list(range(2, 17))
ENTRY = {f"{slot}_{part}": WIDTHS for slot in ("data_in", "weight", "bias") for part in ("width", "frac_width")}
LIMITS = {"study_mb": 100.0, "opens_in_s": 1.0}


def pace() -> float:
    """Seconds of some plain Python."""
    return seconds(lambda: sum(range(100_000)), 9)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    arguments = parser.parse_args()

    use_one_thread()
    torch.manual_seed(0)
    model = build("jsc-hls4ml", (16,), 5).eval()
    tenth = max(1, arguments.trials // 20)
    ends = (tenth // 5, tenth, arguments.trials - tenth, arguments.trials)
    moments, paces, sizes = [cpu()], dict[int, float](), set[str]()

    def after(done: int) -> None:
        moments.append(cpu())
        if done in ends:
            paces[done] = pace()

    with tempfile.TemporaryDirectory() as folder:
        study = pb.search(
            model,
            val=(torch.randn(8, 16), torch.randint(0, 5, (8,))),
            space=pb.Quantize(by="type", seed={"linear": {"name": "integer", **ENTRY}}),
            runners={name: {} for name in ("basic_computation", "average_bitwidth", "model_size")},
            strategy={"name": "brute_force", "order": "shuffled"},
            minimize=["bitops", "model_size"],
            n_trials=arguments.trials,
            out=Path(folder) / "run",
            on_trial=lambda progress: after(progress.done),
        )
        sizes.add(str(study.facts["size"]))
        del study
        file = Path(folder) / "run" / "study.db"
        opened = []
        for _ in range(3):
            began = cpu()
            with pb.Study.open(file) as again:
                opened.append(cpu() - began)
        began = cpu()
        front = len(again.front())
        fronted = cpu() - began
        megabytes = file.stat().st_size / 1e6
    spent = [b - a for a, b in itertools.pairwise(moments)]
    first, last = ([paces.get(end, pace()) for end in pair] for pair in (ends[:2], ends[2:]))
    (early,) = in_units([statistics.median(spent[tenth // 5 : tenth])], first)
    (late,) = in_units([statistics.median(spent[-tenth:])], last)
    result: dict[str, Any] = {
        "trials": len(again),
        "configurations": sizes.pop(),
        "study_mb": round(megabytes, 1),
        "opens_in_s": round(statistics.median(opened), 3),
        "front_in_s": round(fronted, 3),
        "front_trials": front,
        "cpu_at_the_end_over_start": round(late / early, 3),
        "ms_per_trial": round(1e3 * (moments[-1] - moments[0]) / arguments.trials, 3),
    }
    show(result, arguments)
    missed = [f"{n} is {result[n]}, the limit <= {limit}" for n, limit in LIMITS.items() if result[n] > limit]
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
