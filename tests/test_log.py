"""Warnings that name the user's line, and short lists of names."""

import sys
import warnings
from types import ModuleType

import pytest

from stp._log import count, preview, silence, warn


def test_a_warning_names_the_line_of_the_caller() -> None:
    with pytest.warns(UserWarning, match="look here") as caught:
        warn("look here")
    assert caught[0].filename == __file__


def test_a_warning_from_deep_inside_the_package_names_the_first_line_outside() -> None:
    inner = ModuleType("stp.inner")
    exec("def deep(f):\n    return deeper(f)\ndef deeper(f):\n    f('deep')\n", inner.__dict__)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inner.deep(warn)
        line = sys._getframe().f_lineno - 1
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [((), ""), (["a"], "a"), (("a", "b", "c"), "a, b, c"), ("abcde", "a, b, c and 2 more")],
)
def test_a_preview_names_the_first_and_counts_the_rest(names, expected) -> None:
    assert preview(names) == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 spots"), (1, "1 spot"), (20_000, "20,000 spots")]
)
def test_a_count_has_its_unit(number, expected) -> None:
    assert count(number, "spot") == expected


def test_a_count_of_an_irregular_noun() -> None:
    assert [count(n, "batch", "batches") for n in (1, 2)] == ["1 batch", "2 batches"]


def test_only_the_warnings_that_are_named_are_silent() -> None:
    with pytest.warns(UserWarning) as caught:
        with silence("zarr v3"):
            warnings.warn("zarr v3 autosharding", stacklevel=1)
            warnings.warn("mind the gap", stacklevel=1)
        warnings.warn("zarr v3 again", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["mind the gap", "zarr v3 again"]
