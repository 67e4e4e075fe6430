"""The conformance suite: everything that a number format promises, as a class of tests to inherit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from paretobit.testing.inputs import asked_for
from paretobit.testing.statements import Statements
from paretobit.testing.tensors import Gradients, Tensors
from paretobit.testing.values import Values


class FormatConformance(Statements, Tensors, Values, Gradients):
    """Tests that hold for every number format; one fixture says which.

    They test exactly what the `traits` of the format declare, and what every format promises
    whatever its traits. A format that draws random numbers is tested with seeds::

        from paretobit.testing import FormatConformance

        class TestMyFormat(FormatConformance):
            @pytest.fixture(params=[4, 8])
            def number_format(self, request):
                return MyFormat(width=request.param)

    Attributes:
        part: Elements of a vector that are sure to share a scale: no more than a block or group has.
        powers: Powers of two that a scale from the data follows, on numbers around 1: fewer where a
            narrow shared exponent ends, none where other values (a fixed threshold) stay as they are.
        examples: How many inputs each property is tried on.
    """

    part: ClassVar[int] = 4
    powers: ClassVar[Sequence[int]] = (-9, -1, 1, 6)
    examples: ClassVar[int] = 30

    number_format = asked_for("number_format", "a format")
