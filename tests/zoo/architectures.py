"""The zoo: tiny architectures of transformers with random weights, as `architectures.toml` describes them."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_WORDS = (5, 97)  # those below mean something: padding, begin, end


@dataclass(frozen=True)
class Architecture:
    """One model of the zoo.

    Attributes:
        name: Unique.
        family: What it is for.
        model: Its class in transformers.
        inputs: Name of an argument to what one row of it holds: a number of words, or a shape.
        config: Of its configuration.
    """

    name: str
    family: str
    model: str
    inputs: Mapping[str, int | list[int]]
    config: Mapping[str, Any]

    def build(self) -> nn.Module:
        """The model in evaluation mode, the same whenever it is called."""
        import transformers

        transformers.logging.set_verbosity_error()
        kind = getattr(transformers, self.model)
        given = {key: _configuration(value) for key, value in self.config.items()}
        torch.manual_seed(0)
        model: nn.Module = kind(kind.config_class(**given)).eval()
        _wake(model)
        if self.name == "dpt":  # its last ReLU would give zeros
            [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)][-1].bias.data.fill_(1.0)
        return model

    def draw(self, rows: int, seed: int = 0, padding: int = 0) -> dict[str, Tensor]:
        """Arguments: so many rows, of texts the last words padding where there is a mask."""
        generator = torch.Generator().manual_seed(seed)
        drawn = {}
        for name, row in self.inputs.items():
            if not isinstance(row, int):
                drawn[name] = torch.randn(rows, *row, generator=generator)
            elif name == "attention_mask":
                drawn[name] = torch.ones(rows, row, dtype=torch.long)
                drawn[name][1:, row - padding :] = 0
            else:
                drawn[name] = torch.randint(*_WORDS, (rows, row), generator=generator)
        return drawn


def _configuration(value: Any) -> Any:
    """A setting; a table with a `type` is the configuration of another model."""
    import transformers

    if isinstance(value, dict) and "type" in value:
        return getattr(transformers, value["type"])(**{k: v for k, v in value.items() if k != "type"})
    return value


def _wake(model: nn.Module) -> None:
    """Values for layers that are initialised to zero (gates, layer scales): they would say nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and parameter.is_floating_point() and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)


def _read() -> dict[str, Architecture]:
    tables = tomllib.loads(Path(__file__).with_name("architectures.toml").read_text(encoding="utf-8"))
    return {name: Architecture(name, **table) for name, table in tables.items()}


ZOO = _read()
"""All of them, by name."""
