"""Two workers against one, beside what the machine gives two independent processes.

    python benchmarks/workers.py [--json] [--no-record] [--milliseconds 10] [--trials 300]

Trials of about the length asked for (matrix products on one thread), random search. The machine's own
ratio comes from the same products in one process and in two processes at once. How soon several workers are
done is what is waited for, so that this is wall time, in rounds of all four in turns: on a machine that does
other things the ratios of the two pairs still compare. `cpu_of_two_workers_over_one` is what the second worker
costs: seconds of the processor of whole searches, workers included.
"""

from __future__ import annotations

import multiprocessing
import time

import torch
from output import parser_of, show
from timing import cpu, ratio
from torch import Tensor, nn

import paretobit as pb
from paretobit.runtime import use_one_thread

SIZE = 384
WARM_UP = 20


class Busy(nn.Module):
    """A layer to quantise, and so many products."""

    def __init__(self, products: int) -> None:
        super().__init__()
        self.layer = nn.Linear(SIZE, 4)
        self.products = products

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for _ in range(self.products):
            y = torch.tanh(y @ x.t() @ x / SIZE)
        scores: Tensor = self.layer(y)
        return scores


def seconds_of(model: nn.Module, x: Tensor, runs: int) -> float:
    """Seconds for so many forward passes in this process."""
    use_one_thread()
    with torch.no_grad():
        model(x)
        start = time.perf_counter()
        for _ in range(runs):
            model(x)
    return time.perf_counter() - start


def independent(products: int, runs: int, processes: int) -> float:
    """Forward passes per second of so many independent processes."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        arguments = [(products, runs)] * processes
        pool.starmap(_passes, [(products, 2)] * processes)  # imports done
        return sum(runs / seconds for seconds in pool.starmap(_passes, arguments, chunksize=1))


def _passes(products: int, runs: int) -> float:
    torch.manual_seed(0)
    return seconds_of(Busy(products), torch.randn(SIZE, SIZE), runs)


def searched(model: nn.Module, x: Tensor, y: Tensor, trials: int, workers: int) -> tuple[float, float]:
    """Trials per second once the workers are warm, and seconds of the processor of the search."""
    moments: list[float] = []
    start = cpu()
    choices = list(range(2, 17))
    pb.search(
        model,
        val=(x, y),
        space=pb.Quantize(
            by="type",
            seed={"linear": {"weight_width": choices, "weight_frac_width": choices, "data_in_width": choices}},
        ),
        strategy="random",
        maximize="accuracy",
        n_trials=trials + WARM_UP,
        workers=workers,
        engine="processes",
        on_trial=lambda _: moments.append(time.perf_counter()),
    )
    return trials / (moments[-1] - moments[WARM_UP - 1]), cpu() - start


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--milliseconds", type=float, default=10.0)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    x, y = torch.randn(SIZE, SIZE), torch.randint(0, 4, (SIZE,))
    each = seconds_of(Busy(20), x, 10) / 200
    products = max(1, round(arguments.milliseconds / 1e3 / each))
    runs = arguments.trials
    model = Busy(products)
    machine, speeds, costs, milliseconds = list[float](), list[float](), list[float](), list[float]()
    for _ in range(arguments.rounds):
        machine.append(independent(products, runs, 2) / independent(products, runs, 1))
        one, two = (searched(model, x, y, arguments.trials, workers) for workers in (1, 2))
        speeds.append(two[0] / one[0])
        costs.append(two[1] / one[1])
        milliseconds.append(1e3 / one[0])
    result = {
        "two_workers_over_one": round(ratio(speeds).median, 3),
        "two_processes_over_one": round(ratio(machine).median, 3),
        "cpu_of_two_workers_over_one": round(ratio(costs).median, 3),
        "spread": ratio(speeds).spread,
        "trial_ms": round(ratio(milliseconds).median, 2),
        "trials": arguments.trials,
    }
    show(result, arguments)


if __name__ == "__main__":
    main()
