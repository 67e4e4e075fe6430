"""What is deprecated works as before, and says once, at the user's line, what to use instead."""

import inspect
import warnings

import pytest

from paretobit.deprecation import deprecated, renamed_argument
from paretobit.errors import BadInput

WHEN = {"since": "0.3.0", "removed_in": "0.5.0"}


@deprecated("later()", **WHEN)
def sooner(a, *, b=2):
    """Says what it was given."""
    return a, b


class Shop:
    @renamed_argument("count", "n_items", **WHEN)
    def order(self, name, n_items=1):
        return name, n_items


def line():
    """The line that calls this."""
    return inspect.currentframe().f_back.f_lineno


def test_a_deprecated_function_answers_as_before_and_names_the_line_that_called_it():
    with pytest.warns(DeprecationWarning, match="sooner") as caught:
        answer, here = sooner(1, b=3), line()
    assert answer == (1, 3)
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, here)]
    expected = "sooner() is deprecated since 0.3.0 and goes in 0.5.0: use later()"
    assert str(caught[0].message) == expected
    assert (sooner.__name__, sooner.__doc__) == ("sooner", "Says what it was given.")


def test_a_line_in_a_loop_warns_once_and_every_line_warns():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            sooner(1)
        sooner(2)
    assert len(caught) == 2
    assert len({w.lineno for w in caught}) == 2


def test_the_old_name_of_an_argument_is_translated():
    with pytest.warns(DeprecationWarning, match=r"count= of Shop.order\(\) .*: use n_items=") as caught:
        answer, here = Shop().order("tea", count=3), line()
    assert answer == ("tea", 3)
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, here)]


def test_the_new_name_of_an_argument_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Shop().order("tea", n_items=3) == Shop().order("tea", 3) == ("tea", 3)


def test_both_names_of_an_argument_are_refused():
    with pytest.raises(BadInput, match="count= is the old name of n_items="):
        Shop().order("tea", count=3, n_items=3)
