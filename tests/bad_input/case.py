"""One kind of bad input: what a user does, what is raised, and how the list of them is made."""

import contextlib
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.bad_input.given import GIVEN

CASES: list["Case"] = []


class Case(NamedTuple):
    """One kind of bad input."""

    error: type[Exception]
    says: str  # a regular expression that the message holds
    function: Callable

    @property
    def title(self) -> str:
        name = self.function.__name__.replace("_", " ")
        return name[0].upper() + name[1:]

    @property
    def code(self) -> str:
        """What a user does: the body without its docstring."""
        body = textwrap.dedent(inspect.getsource(self.function)).split('"""')[2]
        return textwrap.dedent(body).strip()

    def run(self, folder: Path) -> Exception:
        """Do it in a folder, and return what it raises."""
        named = inspect.signature(self.function).parameters
        with contextlib.chdir(folder):
            try:
                self.function(**{name: GIVEN[name]() for name in named})
            except Exception as error:  # noqa: BLE001 - a test compares it with what is expected
                return error
        raise AssertionError(f"{self.title}: nothing was refused")


def refused(error: type[Exception], says: str) -> Callable:
    """List a function that raises `error` with a message that holds `says`."""

    def add(function: Callable) -> Callable:
        CASES.append(Case(error, says, function))
        return function

    return add
