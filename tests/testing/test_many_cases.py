"""A test of many cases tries them all, takes fixtures, and fails with the cases that fail."""

import pytest
from many_cases import each


@each(("left", "right"), [(1, 2), (2, 4), (3, 6)])
@pytest.mark.parametrize("factor", [2])
def test_fixtures_and_cases_come_together(left, right, factor):
    assert left * factor == right


def test_all_cases_are_tried_and_those_that_fail_are_named():
    seen = []

    @each("case", range(5))
    def odd(case):
        seen.append(case)
        assert case % 2, case

    with pytest.raises(AssertionError) as caught:
        odd()
    assert seen == [0, 1, 2, 3, 4]
    assert caught.value.__notes__ == ["3 of 5 cases fail: [0, 2, 4]"]
