"""Memory of a search over a BERT of 110 million parameters, in multiples of its weights.

    python benchmarks/memory.py [--json] [--no-record] [--trials 60] [--layers 12]

The model (random weights) is measured by a function of the user's on 16 sequences of 32 tokens, on one
thread; every trial quantises its linear layers anew. Each figure comes from a process of its own. The peak
may be twice the weights (the caller's model and the search's), the activations of one batch, and the
budget of the cache of quantised weights; from trial 10 to the last one it may grow by 2 %. Ends with exit
code 1 and the names of the limits that were missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from output import parser_of, show
from timing import cpu
from torch import Tensor, nn

import paretobit as pb
from paretobit.nn.cache import DEFAULT_BUDGET
from paretobit.runtime import use_one_thread

MB = 2**20
SEQUENCES, TOKENS, VOCABULARY = 16, 32, 30522
EARLY = 10


def bert(layers: int) -> nn.Module:
    """BERT base with random weights."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_hidden_layers": layers, "vocab_size": VOCABULARY, "num_labels": 2}
    model: nn.Module = BertForSequenceClassification(BertConfig(**settings))
    return model.eval()


def sentences() -> dict[str, Tensor]:
    """One batch."""
    ids = torch.randint(0, VOCABULARY, (SEQUENCES, TOKENS), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def resident() -> int:
    """Bytes of memory that this process has now."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


@contextmanager
def highest() -> Iterator[list[int]]:
    """The most memory that the process had inside the block, looked at every few milliseconds."""
    peak, done = [resident()], Event()

    def look() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident())

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def activations(layers: int) -> dict[str, float]:
    """The weights, and the activations of one batch: what a forward pass keeps for a backward pass."""
    use_one_thread()
    model, batch = bert(layers), sentences()
    weights = sum(p.nbytes for p in model.parameters())
    before = resident()
    output = model(**batch)
    return {"weights": weights, "activations": resident() - before, "logits": output.logits.numel()}


def searched(layers: int, trials: int) -> dict[str, float]:
    """Memory of a search: its peak, and what there is after trial 10 and after the last one."""
    use_one_thread()
    search(nn.Linear(4, 2).eval(), {"input": torch.randn(3, 4)}, 2)  # everything is imported
    bert(1)
    start = resident()
    model = bert(layers)
    after: dict[int, int] = {}
    began = cpu()
    with highest() as peak:
        search(model, sentences(), trials, lambda progress: after.update({progress.done: resident()}))
    found = {"peak": peak[0] - start, "early": after[EARLY] - start, "late": after[trials] - start}
    return {**found, "seconds": cpu() - began}


def search(model: nn.Module, batch: Mapping[str, Tensor], trials: int, on_trial: Any = None) -> None:
    """A search with a measurement of the user's."""

    def measure(candidate: nn.Module) -> Mapping[str, float]:
        with torch.no_grad():
            output = candidate(**batch)
        return {"spread": float(getattr(output, "logits", output).std())}

    pb.search(
        model,
        evaluate=measure,
        example=batch,
        space=pb.Quantize(by="type", seed={"linear": {"weight_width": [4, 6, 8], "data_in_width": [4, 8]}}),
        strategy="random",
        maximize="spread",
        minimize="bitops",
        n_trials=trials,
        on_trial=on_trial,
    )


def alone(part: str, arguments: argparse.Namespace) -> dict[str, float]:
    """A part of this benchmark in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--layers", str(arguments.layers)]
    command += ["--trials", str(arguments.trials)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--layers", type=int, default=12, help="of the encoder")
    parser.add_argument("--part", choices=["activations", "search"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part == "activations":
        print(json.dumps(activations(arguments.layers)))
        return
    if arguments.part == "search":
        print(json.dumps(searched(arguments.layers, arguments.trials)))
        return

    plain, search = alone("activations", arguments), alone("search", arguments)
    allowed = 2 * plain["weights"] + plain["activations"] + DEFAULT_BUDGET
    result: dict[str, Any] = {
        "peak_over_allowed": round(search["peak"] / allowed, 3),
        f"growth_from_trial_{EARLY}_to_{arguments.trials}": round(search["late"] / search["early"] - 1, 4),
        "weights_mb": round(plain["weights"] / MB, 1),
        "activations_mb": round(plain["activations"] / MB, 1),
        "cache_budget_mb": DEFAULT_BUDGET // MB,
        "peak_mb": round(search["peak"] / MB, 1),
        "peak_over_weights": round(search["peak"] / plain["weights"], 2),
        "cpu_seconds_per_trial": round(search["seconds"] / arguments.trials, 2),
        "trials": arguments.trials,
    }
    show(result, arguments)
    limits = {"peak_over_allowed": 1.0, f"growth_from_trial_{EARLY}_to_{arguments.trials}": 0.02}
    missed = [
        f"{name} is {result[name]}, the limit <= {limit}" for name, limit in limits.items() if result[name] > limit
    ]
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
