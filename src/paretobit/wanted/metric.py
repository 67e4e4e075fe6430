"""One number that a model is judged by."""

from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Metric:
    """One number a runner provides.

    Attributes:
        name: Its key in the results.
        direction: Which way is better.
        unit: What one of it is.
        cheap: Known from the configuration alone, without running the model.
        repeats: Measured again, it is the same number: no time, and nothing drawn at random without a seed.
        short: A shorter name that objectives and questions may use.
    """

    name: str
    direction: Direction
    unit: str
    cheap: bool = False
    short: str | None = None
    repeats: bool = True
