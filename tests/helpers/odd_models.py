"""Models that a search must not choke on, drawn at random: types, autocast, endings that nothing can be scored at."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 8


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.view(len(x), 2, 4)
        return F.scaled_dot_product_attention(self.q(tokens), self.k(tokens), self.v(tokens)).flatten(1)


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(1, 2, 3, padding=1), nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x.unsqueeze(1))).relu().mean(1)


class Own(nn.Module):
    """A parameter read by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(FEATURES, FEATURES) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(F.linear(x, self.w)) + x * 0.5


class _NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign() * x.abs().sqrt()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError("there is no backward\nof this operation")


def _in_place(y: Tensor) -> Tensor:
    z = y.exp()
    z.mul_(0.5)  # what the gradient of `exp` needs is gone
    return y + z


ENDINGS: dict[str, Callable[[Tensor], Any]] = {
    "plain": lambda y: y,
    "argmax": lambda y: y.argmax(-1),
    "indices": lambda y: y.topk(2).indices,
    "table": lambda y: {"logits": y},
    "tuple": lambda y: (y, y.argmax(-1)),
    "no backward": lambda y: _NoBackward.apply(y),
    "no gradient": lambda y: y.detach(),
    "NumPy": lambda y: torch.from_numpy(y.detach().float().numpy()).clone(),
    "in place": _in_place,
    "steps": lambda y: y.round(),
    "rows that depend on data": lambda y: y[y[:, 0] > 0],
    "no tensor": lambda y: y.tolist(),
}
PARTS = (lambda: nn.Linear(FEATURES, FEATURES), lambda: nn.LayerNorm(FEATURES), nn.ReLU, Attention, Convolution, Own)
CASTS = (None, None, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Drawn:
    """How a model was drawn."""

    dtype: torch.dtype
    cast: torch.dtype | None
    ending: str
    mixed: bool = False
    inference: bool = False


class OddModel(nn.Module):
    """Some parts and a head of 5 classes."""

    def __init__(self, drawn: Drawn, parts: list[nn.Module]) -> None:
        super().__init__()
        self.drawn, self.body, self.head = drawn, nn.Sequential(*parts), nn.Linear(FEATURES, 5)
        self.to(drawn.dtype)
        if drawn.mixed:
            self.head.float()

    def forward(self, x: Tensor) -> Any:
        cast, surroundings = self.drawn.cast, contextlib.ExitStack()
        if self.drawn.inference:
            surroundings.enter_context(torch.inference_mode())
        if cast is not None:
            surroundings.enter_context(torch.autocast("cpu", cast))
        with surroundings:
            y = self.body(x if cast is not None else x.to(self.drawn.dtype))
            return ENDINGS[self.drawn.ending](self.head(y.float() if self.drawn.mixed else y))


def odd_model(seed: int, ending: str | None = None) -> OddModel:
    """The model of this seed, in evaluation mode.

    Args:
        seed: Of everything that is drawn.
        ending: One of `ENDINGS`; drawn where None.
    """
    draw = random.Random(seed)
    cast = draw.choice(CASTS)
    dtype = draw.choice((torch.float64, torch.float16, torch.bfloat16)) if cast is None else torch.float32
    mixed, inference = cast is None and draw.random() < 0.3, draw.random() < 0.15
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = [draw.choice(PARTS)() for _ in range(draw.randint(1, 3))]
        drawn = Drawn(dtype, cast, ending or draw.choice(list(ENDINGS)), mixed, inference)
        return OddModel(drawn, parts).eval()


def numbers(output: Any) -> Tensor:
    """What a model gave as a flat tensor, float64."""
    first = output["logits"] if isinstance(output, dict) else output[0] if isinstance(output, tuple) else output
    return torch.as_tensor(first).detach().double().flatten()
