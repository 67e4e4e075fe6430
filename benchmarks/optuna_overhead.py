"""TPE through the tool against Optuna alone plus the model: seconds of the processor per trial.

    python benchmarks/optuna_overhead.py [--json] [--no-record] [--milliseconds 20] [--trials 200]

Same seed, same sampler arguments, same `suggest_*` calls: both propose the same trials, which is checked.
Both run in turns; the median of the ratios counts.
"""

from __future__ import annotations

import statistics
from typing import Any

import optuna
import torch
from output import parser_of, show
from timing import cpu, ratio, seconds
from torch import Tensor, nn

import paretobit as pb
from paretobit.formats import make
from paretobit.runtime import one_thread
from paretobit.training import evaluate

WIDTHS, FRACTIONS = [2, 3, 4, 6, 8, 12, 16], [1, 2, 3, 4, 6, 8]
FEATURES, CLASSES, LAYERS = 64, 10, 4
ROWS = 8192
Widths = dict[str, Any]


class Network(nn.Module):
    """A few layers on as many rows as make a trial long enough."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(FEATURES, FEATURES) for _ in range(LAYERS))
        self.last = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        scores: Tensor = self.last(x)
        return scores


def through_the_tool(model: nn.Module, x: Tensor, y: Tensor, trials: int) -> tuple[list[Widths], list[float]]:
    """Configurations and the moments at which they were finished."""
    moments: list[float] = []
    seed = {"linear": {"weight_width": WIDTHS, "weight_frac_width": FRACTIONS}}
    study = pb.search(
        model,
        val=(x, y),
        space=pb.Quantize(by="type", seed=seed),
        strategy="tpe",
        maximize="accuracy",
        runners={"basic_evaluation": {"batch_size": ROWS}},
        n_trials=trials,
        on_trial=lambda _: moments.append(cpu()),
    )
    return [dict(trial.config) for trial in study.trials], moments


def optuna_alone(model: nn.Module, x: Tensor, y: Tensor, trials: int) -> tuple[list[Widths], list[float]]:
    """The same by hand."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    configs: list[Widths] = []
    moments: list[float] = []
    known: dict[tuple[int, ...], float] = {}

    def objective(trial: optuna.Trial) -> float:
        config = {}
        for name in layers:
            knob = name.replace(".", "_")
            for key, values in (("weight_width", WIDTHS), ("weight_frac_width", FRACTIONS)):
                config[f"{knob}.{key}"] = values[trial.suggest_int(f"{knob}.{key}", 0, len(values) - 1)]
        configs.append(config)
        widths = tuple(config.values())
        if widths not in known:
            for name, layer in layers.items():
                knob = name.replace(".", "_")
                number_format = make(
                    "integer", width=config[f"{knob}.weight_width"], frac_width=config[f"{knob}.weight_frac_width"]
                )
                layer.weight.data.copy_(number_format.quantize(weights[name]))
            known[widths] = evaluate(model, x, y, ROWS).accuracy
        moments.append(cpu())
        return -known[widths]

    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True)
    with one_thread():
        optuna.create_study(sampler=sampler).optimize(objective, n_trials=trials)
    for name, layer in layers.items():
        layer.weight.data.copy_(weights[name])
    return configs, moments


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--milliseconds", type=float, default=20.0)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = Network().eval()
    x, y = torch.randn(20_000, FEATURES), torch.randint(0, CLASSES, (20_000,))
    with one_thread():
        rows = round(len(x) * arguments.milliseconds / 1e3 / seconds(lambda: evaluate(model, x, y, ROWS), 10))
    x, y = torch.randn(rows, FEATURES), torch.randint(0, CLASSES, (rows,))

    ratios, milliseconds = [], []
    optuna_alone(model, x, y, 20)
    for _ in range(arguments.rounds):
        ours, our_moments = through_the_tool(model, x, y, arguments.trials)
        theirs, their_moments = optuna_alone(model, x, y, arguments.trials)
        assert ours == theirs, "the proposals differ"
        spans = [moments[-1] - moments[0] for moments in (our_moments, their_moments)]
        ratios.append(spans[0] / spans[1])
        milliseconds.append(1e3 * spans[1] / arguments.trials)
    found = ratio(ratios)
    result = {
        "tool_over_optuna_alone": round(found.median, 3),
        "spread": found.spread,
        "ratios": [round(one, 3) for one in ratios],
        "optuna_alone_trial_ms": round(statistics.median(milliseconds), 2),
        "same_proposals": True,
        "trials": arguments.trials,
    }
    show(result, arguments)


if __name__ == "__main__":
    main()
