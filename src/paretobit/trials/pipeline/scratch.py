"""Weights drawn anew, as the layers of a model draw them."""

from collections.abc import Iterator

from torch import nn

from paretobit.errors import BadInput
from paretobit.runtime import seeded

_RESETS = ("reset_parameters", "_reset_parameters")


def draw_anew(model: nn.Module, seed: int) -> None:
    """Give every layer fresh weights and statistics, in place.

    Layers draw them as when they are made (`reset_parameters`); a transformer then as its type does.

    Args:
        model: Any module.
        seed: Decides the weights; the caller's random state is not touched.

    Raises:
        BadInput: A module has parameters of its own and does not say how they are drawn.
    """
    as_its_type = getattr(model, "_init_weights", None)  # of transformers
    if not callable(as_its_type):
        unknown = next(_without_reset(model), None)
        if unknown is not None:
            problem = f"'{unknown}' has parameters and no reset_parameters: they cannot be drawn anew"
            raise BadInput(problem, key="weights", found="scratch", allowed=["given"])
    with seeded(seed):
        for module in model.modules():
            reset = next((getattr(module, name) for name in _RESETS if hasattr(module, name)), None)
            if callable(reset):
                reset()
        if callable(as_its_type):
            for module in model.modules():
                as_its_type(module)


def _without_reset(model: nn.Module) -> Iterator[str]:
    for path, module in model.named_modules():
        own = any(True for _ in module.parameters(recurse=False))
        if own and not any(callable(getattr(module, name, None)) for name in _RESETS):
            yield path or type(module).__name__
