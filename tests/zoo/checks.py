"""What is checked of an architecture, each against something that knows nothing of ParetoBit."""

import copy
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from architectures import Architecture
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import paretobit as pb
from paretobit.graph import ModelGraph, width_groups, with_conditional
from paretobit.nn import formats_of, parameter_uses
from paretobit.passes.analysis import cost, coverage
from paretobit.passes.analysis.coverage import reached_by
from paretobit.passes.layers.quantizable import slots_at
from paretobit.passes.transform import QuantizeSettings, quantize, resize

_FULL_BITS = 32
EIGHT = {"name": "scaled_integer", "width": 8}


@dataclass
class Checked:
    """What was found of one architecture; a text is what went wrong.

    Attributes:
        name: Of the architecture.
        family: Its.
        found: Check to `ok`, `said: …` (the tool names what it left out, and why), `wrong: …` or an error.
        figures: Numbers beside them.
    """

    name: str
    family: str
    found: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


CHECKS = ("traced", "costs", "eight bits", "saved", "searched", "widths")


def check(architecture: Architecture, checks: tuple[str, ...] = CHECKS) -> Checked:
    """Make the checks of one architecture; each goes on when another fails."""
    result = Checked(architecture.name, architecture.family)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for name in checks:
            try:
                result.found[name] = BY_NAME[name](architecture, result.figures)
            except Exception as error:
                result.found[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]
    return result


def verdict(text: str) -> str:
    """`ok`, `said` or `wrong`."""
    return text if text == "ok" else "said" if text.startswith("said: ") else "wrong"


def _traced(architecture: Architecture, figures: dict[str, Any]) -> str:
    """The graph has nodes, and the model is as it was."""
    model = architecture.build()
    before = copy.deepcopy(model.state_dict())
    graph = pb.trace(model, architecture.draw(2))
    same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    figures |= {"nodes": len(graph.nodes), "method": graph.method}
    return "ok" if same and graph.nodes else "wrong: the model was changed"


def _costs(architecture: Architecture, figures: dict[str, Any]) -> str:
    """MACs of one row are those of torch's counter."""
    model = architecture.build()
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: _grouped})
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    plain = torch.backends.mkldnn.flags(
        enabled=False
    )  # its recurrent layers are not counted, and modules without gradients
    with plain, counter, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        model(**architecture.draw(1))
    torch.backends.mha.set_fastpath_enabled(fast)
    report = cost(pb.trace(architecture.build(), architecture.draw(2)))
    ours, theirs = report.total("macs"), counter.get_total_flops() // 2
    figures |= {"macs": ours, "torch": theirs, "uncounted": sorted(report.uncounted_ops)}
    if ours == theirs:
        return "ok"
    return f"said: {', '.join(sorted(report.uncounted_ops))}" if report.uncounted else f"wrong: {ours} for {theirs}"


def _grouped(x: Any, weights: Any, offsets: Any = None, *rest: Any, **named: Any) -> int:
    """FLOPs of tokens `(n, k)` that each meet the weights `(k, m)` of one expert: torch counts none."""
    return 2 * x[0] * x[1] * weights[-1]


def _everywhere(graph: ModelGraph) -> dict[str, Any]:
    """Eight bits for every slot of every layer and function that has some."""
    entries: dict[str, dict[str, Any]] = {}
    for node in graph:
        for slot in slots_at(graph, node) if node.is_call else ():
            entries.setdefault(node.op, {})[slot] = EIGHT
    return entries


def _batches(architecture: Architecture) -> list[dict[str, Tensor]]:
    """Other rows than those that were traced: padded, as many, one; those that the float model takes."""
    drawn = [architecture.draw(3, seed=1, padding=3), architecture.draw(2), architecture.draw(1, seed=2)]
    return [batch for batch in drawn if _runs(architecture.build(), batch)]


def _runs(model: nn.Module, batch: dict[str, Tensor]) -> bool:
    try:
        _outputs(model, batch)
    except Exception:  # one that takes no padding
        return False
    return True


def _graph(architecture: Architecture) -> ModelGraph:
    """As a search has it: it knows which functions some batches do not call."""
    graph = pb.trace(architecture.build(), architecture.draw(2))
    return with_conditional(graph, {f"batch {i}": batch for i, batch in enumerate(_batches(architecture))})


def _eight_bits(architecture: Architecture, figures: dict[str, Any]) -> str:
    """With eight bits asked for everywhere: the share of the elements that stays in float, and why."""
    graph = _graph(architecture)
    changed, _ = quantize(graph, QuantizeSettings(by="type", entries=_everywhere(graph)))
    changed.model(**architecture.draw(2))
    formats = formats_of(changed.model, every_path=True)
    stored = parameter_uses(changed).stored
    left = 0
    for one in stored:
        parts = one.parts(one.agreed(formats))
        left += sum(math.prod(shape) for number_format, shape in parts if number_format.element_bits == _FULL_BITS)
    share = left / sum(one.elements for one in stored)
    said = coverage(changed, reached_by(formats)).left
    figures |= {"float share": round(share, 4), "float": {one.why: round(one.parameters, 4) for one in said}}
    if abs(share - sum(one.parameters for one in said)) > 1e-6:
        return f"wrong: {share:.1%} float, {sum(one.parameters for one in said):.1%} said"
    return f"said: {share:.1%} float: {said[0].why}" if share else "ok"


def _saved(architecture: Architecture, figures: dict[str, Any]) -> str:
    """Quantised, saved and loaded into a fresh model, it gives the same bits, whichever batch comes first."""
    graph = _graph(architecture)
    changed, _ = quantize(graph, QuantizeSettings(by="type", entries=_everywhere(graph)))
    batches = _batches(architecture)
    with tempfile.TemporaryDirectory() as folder:
        pb.save(folder, changed.model)
        expected = [_outputs(changed.model, batch) for batch in batches]
        loaded = pb.load(folder, model=architecture.build())
        for batch, outputs in reversed(list(zip(batches, expected, strict=True))):
            found = _outputs(loaded, batch)
            if len(found) != len(outputs) or not all(map(_same, found, outputs)):
                return "wrong: other outputs"
    return "ok"


def _searched(architecture: Architecture, figures: dict[str, Any]) -> str:
    """A search over all its types ends with every trial; each metric is that of the delivered model alone."""
    model, batch = architecture.build(), architecture.draw(3)
    wanted = _outputs(model, batch)

    def error(candidate: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            found = _outputs(candidate, batch)
        return {"error": sum(_distance(a, b) for a, b in zip(found, wanted, strict=True))}

    types = {node.op for node in pb.trace(model, architecture.draw(2)).layers}
    layers = {op: [4, 8] for op in types & {"linear", "conv1d", "conv2d", "embedding"}}
    seed = {op: {"name": "scaled_integer", "weight_width": widths} for op, widths in layers.items()}
    study = pb.search(
        model,
        space=pb.Quantize(by="type", share="type", seed=seed),
        evaluate=error,
        example=architecture.draw(2),
        minimize=["error", "model_size"],
        strategy="random",
        n_trials=3,
    )
    for trial in study.trials:
        if trial.state not in ("complete", "duplicate"):
            return f"wrong: {(trial.error or '').strip().splitlines()[-1][:120]}"
        if error(trial.model())["error"] != trial.metrics["error"]:
            return "wrong: the delivered model measures otherwise"
    return "ok"


def _widths(architecture: Architecture, figures: dict[str, Any]) -> str:
    """Every group that is called free can be halved and doubled, and the model still runs."""
    graph = pb.trace(architecture.build(), architecture.draw(2))
    groups = width_groups(graph).groups
    free = [group for group in groups if not group.frozen]
    figures |= {"groups": len(groups), "free": len(free)}
    for factor in (0.5, 2):
        widths = {
            group.name: max(group.divisor, int(group.width * factor) // group.divisor * group.divisor) for group in free
        }
        if widths:
            _outputs(resize(graph, widths, "scratch").model, architecture.draw(2))
    return "ok" if free else f"said: {groups[0].frozen if groups else 'no width can change'}"[:120]


BY_NAME = {
    "traced": _traced,
    "costs": _costs,
    "eight bits": _eight_bits,
    "saved": _saved,
    "searched": _searched,
    "widths": _widths,
}


def _outputs(model: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    with _same_draws():
        result = model(**{name: value.clone() for name, value in batch.items()})
    return [leaf for leaf in tree_leaves(_plain(result)) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


@contextmanager
def _same_draws() -> Iterator[None]:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_rng_state(state)


def _plain(result: Any) -> Any:
    return tuple(result.values()) if isinstance(result, dict) else result


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _distance(one: Tensor, other: Tensor) -> float:
    return (one.nan_to_num() - other.nan_to_num()).double().norm().item()
