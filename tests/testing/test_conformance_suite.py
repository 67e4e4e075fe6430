"""The suite that users inherit accepts a good format, and names the promise that a broken one breaks."""

import inspect
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import pytest
import torch

from paretobit.formats import FORMATS, Description, LossyFormat, Traits
from paretobit.registry import Entry
from paretobit.testing import FormatConformance

pytest_plugins = ["pytester"]


@dataclass(frozen=True)
class Quarter(LossyFormat):
    """Multiples of a quarter from -width/4 to width/4: what the broken formats are made of."""

    name: ClassVar[str] = "quarter"
    formula: ClassVar[str] = "c/4"
    source: ClassVar[str] = "this test"
    width: int = 7

    @property
    def traits(self):
        return Traits(has_zero=True, symmetric=True)

    @property
    def element_bits(self):
        return 4

    def describe(self):
        return Description(-self.width / 4, self.width / 4, 0.25, 0.25, 2 * self.width + 1)

    def codes(self):
        return torch.arange(-self.width, self.width + 1, dtype=torch.float64) / 4

    def _round(self, x):
        return x.mul(4).round_().clamp_(-self.width, self.width).mul_(0.25)


class TiesAway(Quarter):
    """Rounds ties away from zero."""

    def _round(self, x):
        y = x.mul(4)
        return (y.abs() + 0.5).floor_().copysign_(y).clamp_(-self.width, self.width).mul_(0.25)


class Truncating(Quarter):
    """Rounds towards zero although it declares the nearest."""

    def _round(self, x):
        return x.mul(4).trunc_().clamp_(-self.width, self.width).mul_(0.25)


class NoCarry(Quarter):
    """A minifloat of one mantissa bit that rounds within the binade: 0.9375 should become 1."""

    def describe(self):
        return Description(-1.5, 1.5, 0.25, 0.25, 11)

    def codes(self):
        positive = [0.25, 0.5, 0.75, 1.0, 1.5]
        return torch.tensor([-v for v in reversed(positive)] + [0.0, *positive], dtype=torch.float64)

    def _round(self, x):
        y = x.clamp(-1.5, 1.5)
        power = y.abs().log2().floor_().clamp_(-1, 0).exp2_().nan_to_num_(1.0)
        step = power / 2
        return y.div(step).round_().mul_(step).clamp_(-2 * power + step, 2 * power - step)


class ZeroLost(Quarter):
    """Moves everything by a tiny bit, zero too."""

    def _round(self, x):
        return super()._round(x) + 0.125


class Modifying(Quarter):
    """Works in its input."""

    def _round(self, x):
        return x.mul_(4).round_().clamp_(-self.width, self.width).mul_(0.25)


class Aliasing(Quarter):
    """Gives the input back where it is on the grid."""

    def _round(self, x):
        y = super()._round(x)
        return x if torch.equal(x, y) else y


class NanLost(Quarter):
    """Turns NaN into zero."""

    def _round(self, x):
        return super()._round(x.nan_to_num(0.0, float("inf"), float("-inf")))


class NanSpreading(Quarter):
    """One NaN spoils the tensor."""

    def _round(self, x):
        return super()._round(x) + x.abs().clamp(0, 1).mean().mul(0)


class InfinityKept(Quarter):
    """Infinity stays infinite."""

    def _round(self, x):
        return torch.where(x.isinf(), x, super()._round(x))


class Wrapping(Quarter):
    """Overflows instead of saturating."""

    def _round(self, x):
        codes = x.mul(4).clamp_(-1e6, 1e6).round_()
        return (codes + self.width).remainder(2 * self.width + 1).sub_(self.width).mul_(0.25)


class FractionalBits(Quarter):
    """Counts bits in floating point."""

    def bits(self, shape):
        return float(super().bits(shape))


class ForgottenBits(Quarter):
    """Counts fewer bits than the elements have."""

    def bits(self, shape):
        return super().bits(shape) // 2


class NotIdempotent(Quarter):
    """Says that it is idempotent, and halves."""

    def _round(self, x):
        return super()._round(x / 2)


class NotOdd(Quarter):
    """Says that it is symmetric, and reaches further below zero."""

    def describe(self):
        return replace(super().describe(), minimum=-(self.width + 1) / 4, codes=2 * self.width + 2)

    def codes(self):
        return torch.arange(-self.width - 1, self.width + 1, dtype=torch.float64) / 4

    def _round(self, x):
        return x.mul(4).round_().clamp_(-self.width - 1, self.width).mul_(0.25)


class NotOrdered(Quarter):
    """Swaps two neighbouring codes."""

    @property
    def traits(self):
        return replace(super().traits, nearest=False, idempotent=False, symmetric=False)

    def _round(self, x):
        y = super()._round(x)
        return torch.where(y == 0.25, 0.5, torch.where(y == 0.5, 0.25, y))


class Random(Quarter):
    """Says that it is deterministic, and draws."""

    @property
    def traits(self):
        return replace(super().traits, nearest=False, idempotent=False, symmetric=False, monotone=False)

    def _round(self, x):
        return super()._round(x + torch.rand_like(x) / 4)


class HalfOverflow(Quarter):
    """Reaches further than float16, and does not look."""

    def describe(self):
        return Description(-(2.0**17) * self.width, 2.0**17 * self.width, 2.0**17, 2.0**17, 2 * self.width + 1)

    def codes(self):
        return super().codes() * 2.0**19

    def quantize(self, x):
        if x.dtype == torch.float16:
            return self._round(x.float()).to(x.dtype)
        return super().quantize(x)

    def _round(self, x):
        return x.mul(2.0**-17).round_().clamp_(-self.width, self.width).mul_(2.0**17)


class HalfArithmetic(Quarter):
    """Computes half types in their own arithmetic."""

    def quantize(self, x):
        if x.dtype == torch.bfloat16 and not x.requires_grad:
            return self._round(x)
        return super().quantize(x)

    def _round(self, x):
        return x.add(100).sub_(100).mul_(4).round_().clamp_(-self.width, self.width).mul_(0.25)


class WrongRange(Quarter):
    """Describes a maximum that it does not have."""

    def describe(self):
        return replace(super().describe(), maximum=2.0)


class WrongCount(Quarter):
    """Describes a code too few."""

    def describe(self):
        return replace(super().describe(), codes=14)


class WrongStep(Quarter):
    """Describes half its step."""

    def describe(self):
        return replace(super().describe(), step=0.125)


class WrongDtype(Quarter):
    """Returns float32 whatever comes in."""

    def quantize(self, x):
        return super().quantize(x).float()


class Flattening(Quarter):
    """Forgets the shape."""

    def _round(self, x):
        return super()._round(x).flatten()


class TakesIntegers(Quarter):
    """Casts integers instead of refusing them."""

    def quantize(self, x):
        return super().quantize(x if x.is_floating_point() else x.float())


class NoGradient(Quarter):
    """Rounds without a straight-through gradient."""

    def quantize(self, x):
        return self._round(x) if x.dtype == torch.float32 and x.numel() else super().quantize(x)


class NeverMasked(Quarter):
    """Ignores `gradient = "mask"`."""

    def _inside(self, x):
        return torch.ones_like(x, dtype=torch.bool)


class OffScale(Quarter):
    """Says that its scale follows the data, and has a fixed one."""

    @property
    def traits(self):
        return replace(super().traits, scale="max")


@dataclass(frozen=True)
class Forgetful(Quarter):
    """Has a parameter that its text does not mention."""

    extra: int = 3

    @property
    def parameters(self):
        return {key: value for key, value in super().parameters.items() if key != "extra"}


class Thawed(Quarter):
    """Can be changed after it was made."""

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)


def examples(test):
    """The arguments of a test method beyond the format: one dictionary for each parametrised case."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    columns = [[{mark.args[0]: value} for value in mark.args[1]] for mark in marks]
    for choice in product(*columns):
        yield {key: value for case in choice for key, value in case.items()}


def broken_promises(suite, number_format, only=""):
    """Names of the tests of a suite that fail for a format."""
    failed = set()
    for name, test in inspect.getmembers(suite, inspect.isfunction):
        for arguments in examples(test) if name.startswith(only or "test_") else ():
            try:
                test(suite(), number_format, **arguments)
            except (Exception, pytest.fail.Exception):
                failed.add(name)
    return failed


class Quick(FormatConformance):
    examples = 10


@pytest.fixture
def registered(monkeypatch):
    """Files a class under its name for the time of a test."""

    def register(family):
        monkeypatch.setattr(family, "name", family.__name__.lower())
        monkeypatch.setitem(FORMATS._entries, family.name, Entry(family.name, family, "for a test"))
        return family

    return register


def test_a_good_format_passes_every_test(registered):
    assert broken_promises(Quick, registered(Quarter)()) == set()
    assert broken_promises(Quick, registered(Quarter)(width=3, gradient="mask")) == set()


@pytest.mark.parametrize(
    ("family", "promise"),
    [
        (TiesAway, "test_the_value_chosen_is_the_nearest_code"),
        (Truncating, "test_the_value_chosen_is_the_nearest_code"),
        (Truncating, "test_no_other_value_of_the_tensor_would_have_been_nearer"),
        (NoCarry, "test_the_value_chosen_is_the_nearest_code"),
        (ZeroLost, "test_zero_stays_zero"),
        (ZeroLost, "test_values_are_codes"),
        (Modifying, "test_the_input_is_neither_modified_nor_part_of_the_result"),
        (Aliasing, "test_the_input_is_neither_modified_nor_part_of_the_result"),
        (NanLost, "test_nan_stays_where_it_is_and_disturbs_no_other"),
        (NanSpreading, "test_nan_stays_where_it_is_and_disturbs_no_other"),
        (InfinityKept, "test_infinity_becomes_finite"),
        (InfinityKept, "test_infinity_saturates_where_huge_numbers_do"),
        (Wrapping, "test_what_lies_beyond_the_range_saturates"),
        (Wrapping, "test_order_is_kept"),
        (FractionalBits, "test_storage_is_counted_in_whole_bits_and_leaves_nothing_out"),
        (ForgottenBits, "test_storage_is_counted_in_whole_bits_and_leaves_nothing_out"),
        (NotIdempotent, "test_quantising_again_changes_nothing"),
        (NotOdd, "test_negative_numbers_mirror_positive_ones"),
        (NotOrdered, "test_order_is_kept"),
        (NotOrdered, "test_the_value_chosen_is_at_most_a_step_away"),
        (Random, "test_the_same_input_gives_the_same_output"),
        (HalfOverflow, "test_infinity_becomes_finite"),
        (HalfArithmetic, "test_half_types_are_computed_in_float32_and_rounded"),
        (WrongRange, "test_its_description_says_what_its_codes_are"),
        (WrongCount, "test_its_description_says_what_its_codes_are"),
        (WrongStep, "test_its_description_says_what_its_codes_are"),
        (WrongDtype, "test_shape_and_dtype_are_kept"),
        (Flattening, "test_shape_and_dtype_are_kept"),
        (TakesIntegers, "test_what_is_not_floating_point_is_refused"),
        (NoGradient, "test_the_gradient_is_that_of_the_identity"),
        (NoGradient, "test_it_trains"),
        (NeverMasked, "test_a_masked_gradient_is_zero_where_values_saturate"),
        (OffScale, "test_a_scale_from_the_data_follows_powers_of_two"),
        (Thawed, "test_it_is_frozen"),
        (Forgetful, "test_text_brings_it_back"),
        (Forgetful, "test_a_toml_file_brings_it_back"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_broken_format_fails_the_test_of_the_promise_it_breaks(registered, family, promise):
    parameters = {"extra": 4} if family is Forgetful else {}
    assert promise in broken_promises(Quick, registered(family)(**parameters), promise)


GOOD = '''
import pytest
from dataclasses import dataclass
from typing import ClassVar
from paretobit.formats import FORMATS, Integer
from paretobit.testing import FormatConformance

@FORMATS.register("my_integer")
@dataclass(frozen=True)
class MyInteger(Integer):
    """A user's format."""
    name: ClassVar[str] = "my_integer"

    def _round(self, x):
        return super()._round(x){flaw}

class TestMyInteger(FormatConformance):
    examples = 5

    @pytest.fixture(params=[4, 8])
    def number_format(self, request):
        return MyInteger(width=request.param)
'''


@pytest.mark.parametrize(("flaw", "failed"), [("", False), (".nan_to_num_()", True)])
def test_one_fixture_is_all_that_a_user_writes(pytester, monkeypatch, flaw, failed):
    monkeypatch.setattr(FORMATS, "_entries", dict(FORMATS._entries))  # what it registers goes again
    pytester.makepyfile(GOOD.format(flaw=flaw))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    counts = result.parseoutcomes()
    assert counts["passed"] > 70
    assert ("failed" in counts) == failed
    if failed:
        result.stdout.fnmatch_lines(["FAILED *test_nan_stays_where_it_is_and_disturbs_no_other*"])


def test_a_class_without_the_fixture_says_what_is_missing(pytester):
    pytester.makepyfile("from paretobit.testing import FormatConformance\nclass TestMine(FormatConformance): pass")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-x")
    result.stdout.fnmatch_lines(["*TestMine needs a fixture `number_format` that returns a format*"])


@pytest.mark.parametrize("package", ["pytest", "hypothesis"])
def test_without_its_packages_it_says_how_to_get_them(package):
    code = f"import sys; sys.modules[{package!r}] = None; import paretobit.testing"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"paretobit.testing needs the package '{package}': pip install 'paretobit[testing]'" in result.stderr


def test_nothing_else_needs_pytest():
    code = "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None; import paretobit.cli.main"
    code += "; import paretobit.formats, paretobit.workflow.api; print('fine')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "fine", result.stderr
