"""The conformance suite: everything that a number format promises, as a class of tests to inherit."""

import copy
import dataclasses
import math
import pickle
import tomllib
from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch

from paretobit.document import dump
from paretobit.formats import FORMATS, Format, Traits, make, parse
from paretobit.testing.inputs import EMPTY, EXACT, SHAPES, asked_for, codes_of, normal
from paretobit.testing.tensors import Gradients, Tensors
from paretobit.testing.values import Values


class Statements:
    """A format is a frozen description that texts, dictionaries and files bring back."""

    def test_it_is_registered_under_its_name_and_documented(self, number_format: Format) -> None:
        family = type(number_format)
        assert FORMATS[number_format.name] is family
        assert family.__doc__
        for said in (number_format.formula, number_format.source):
            assert isinstance(said, str)
            assert said

    def test_it_is_frozen(self, number_format: Format) -> None:
        names = [field.name for field in dataclasses.fields(number_format)]
        assert dataclasses.is_dataclass(number_format)
        for name in names:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(number_format, name, getattr(number_format, name))

    def test_text_brings_it_back(self, number_format: Format) -> None:
        assert parse(str(number_format)) == number_format

    def test_a_dictionary_brings_it_back(self, number_format: Format) -> None:
        assert make(**number_format.to_dict()) == number_format

    def test_a_toml_file_brings_it_back(self, number_format: Format) -> None:
        assert make(**tomllib.loads(dump(number_format.to_dict()))) == number_format

    def test_pickles_and_copies_are_equal_to_it(self, number_format: Format) -> None:
        for other in (pickle.loads(pickle.dumps(number_format)), copy.deepcopy(number_format)):
            assert other == number_format
            assert hash(other) == hash(number_format)
            assert other.traits == number_format.traits

    def test_its_traits_are_traits(self, number_format: Format) -> None:
        traits = number_format.traits
        assert isinstance(traits, Traits)
        assert traits == number_format.traits

    def test_storage_is_counted_in_whole_bits_and_leaves_nothing_out(self, number_format: Format) -> None:
        assert type(number_format.element_bits) is int
        assert number_format.element_bits >= 1
        for shape in (*SHAPES, *EMPTY):
            bits = number_format.bits(shape)
            assert type(bits) is int
            assert bits >= number_format.element_bits * math.prod(shape)
            assert number_format.bits(list(shape)) == bits

    def test_storing_together_takes_no_more_than_apart(self, number_format: Format) -> None:
        for rows, more in ((1, 1), (3, 4), (16, 17)):
            together = number_format.bits((rows + more, 20))
            assert together <= number_format.bits((rows, 20)) + number_format.bits((more, 20))
            assert together > number_format.bits((rows, 20))

    def test_its_description_makes_sense(self, number_format: Format) -> None:
        described = number_format.describe()
        assert described.minimum < described.maximum
        if described.maximum > 0:
            assert described.smallest_positive is not None
            assert 0 < described.smallest_positive <= described.maximum
        else:
            assert described.smallest_positive is None
        assert described.step is None or 0 < described.step <= described.maximum - described.minimum
        if described.codes is not None:
            assert type(described.codes) is int
            assert 2 <= described.codes <= 2**number_format.element_bits

    def test_its_description_says_what_its_codes_are(self, number_format: Format) -> None:
        codes, described = codes_of(number_format), number_format.describe()
        if codes is None:
            return
        assert codes.dtype == torch.float64
        assert (codes.diff() > 0).all()
        assert codes.isfinite().all()
        assert described.minimum == codes[0]
        assert described.maximum == codes[-1]
        if described.maximum > 0:
            assert described.smallest_positive == codes[codes > 0].min()
        assert described.codes == len(codes)
        assert described.step == pytest.approx(codes.diff().min().item(), rel=1e-12)
        assert bool((codes == 0).any()) >= number_format.traits.has_zero

    def test_values_lie_in_the_range_described(self, number_format: Format) -> None:
        if number_format.traits.scale not in ("none", "fixed"):
            return
        described = number_format.describe()
        for dtype in EXACT:
            x = torch.cat([normal((40,), dtype) * 10.0**k for k in range(-30, 36, 5)])
            y, slack = number_format.quantize(x).double(), 1 + torch.finfo(dtype).eps
            assert (y >= min(described.minimum * slack, described.minimum / slack)).all()
            assert (y <= max(described.maximum * slack, described.maximum / slack)).all()


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
