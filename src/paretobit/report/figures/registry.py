"""The pictures by name: what each shows, what may be asked of it, and how many runs it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from paretobit.errors import BadInput
from paretobit.registry import Registry
from paretobit.report.figures.style import Picture
from paretobit.report.runs import Runs

Option = Literal["metric", "knob", "by", "trial"]


@dataclass(frozen=True)
class Asked:
    """What the user wants to see; None leaves the choice to the picture.

    Attributes:
        metric: A metric of the studies, its short name or its full one.
        knob: A knob of the space, or the ending that knobs of several layers share.
        by: A second knob.
        trial: Number of a trial.
    """

    metric: str | None = None
    knob: str | None = None
    by: str | None = None
    trial: int | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of picture.

    Attributes:
        name: As `paretobit report --figure` takes it.
        summary: What it shows, in one line.
        make: The picture of some runs; raises `BadInput` with the reason where there is none.
        takes: What of `Asked` it heeds.
        several: Whether it lays several runs over each other; otherwise it is of one run.
    """

    name: str
    summary: str
    make: Callable[[Runs, Asked], Picture]
    takes: frozenset[Option]
    several: bool

    def picture(self, runs: Runs, asked: Asked) -> Picture:
        """The picture of some runs.

        Raises:
            BadInput: These runs have no such picture; the reason is given.
        """
        if len(runs) > 1 and not self.several:
            raise BadInput(f"it is of one run, not of {len(runs)}")
        return self.make(runs, asked)


FIGURES: Registry[Kind] = Registry("figure")
Make = Callable[[Runs, Asked], Picture]


def figure(name: str, *, takes: tuple[Option, ...] = (), several: bool = False) -> Callable[[Make], Kind]:
    """Decorator: what makes a picture becomes a kind of it; its docstring's first line is the summary."""

    def kind(make: Make) -> Kind:
        summary = (make.__doc__ or "").strip().splitlines()[0]
        return Kind(name, summary, make, frozenset(takes), several)

    return kind
