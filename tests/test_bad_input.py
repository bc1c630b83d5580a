"""Bad input raises an error of the right kind; the message names the thing and the remedy."""

import inspect
import re

import pytest
from tests.bad_input import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.function.__name__)
@pytest.mark.filterwarnings("default")
def test_bad_input_is_refused(case, tmp_path):
    error = case.run(tmp_path)
    assert type(error) is case.error, error
    assert re.search(case.message, error.args[0], flags=re.DOTALL), error


def test_each_case_has_a_cause_and_a_remedy():
    assert len({case.title for case in CASES}) == len(CASES)
    for case in CASES:
        cause, remedy = inspect.getdoc(case.function).split("\n\n")
        assert cause.endswith(".") and remedy.endswith((".", "`")), case.title
