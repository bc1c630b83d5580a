"""One kind of bad input, and the list of all kinds."""

import contextlib
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.bad_input.examples import EXAMPLES

CASES: list["Case"] = []


class Case(NamedTuple):
    """One kind of bad input."""

    error: type[Exception]
    message: str  # regular expression that the error message must match
    function: Callable

    @property
    def title(self) -> str:
        """The heading of the entry: the name of the function as a sentence."""
        name = self.function.__name__.replace("_", " ")
        return name[0].upper() + name[1:]

    @property
    def code(self) -> str:
        """The code of the user: the body of the function without its docstring."""
        body = textwrap.dedent(inspect.getsource(self.function)).split('"""')[2]
        return textwrap.dedent(body).strip()

    def run(self, folder: Path) -> Exception:
        """Run the code in a folder, and return the error that it raises."""
        names = inspect.signature(self.function).parameters
        with contextlib.chdir(folder):
            try:
                self.function(**{name: EXAMPLES[name]() for name in names})
            except Exception as error:  # noqa: BLE001 - a test checks its type
                return error
        raise AssertionError(f"{self.title}: no error was raised")


def refused(error: type[Exception], message: str) -> Callable:
    """Add a function that raises `error` to the list; the message matches a regular expression."""

    def add(function: Callable) -> Callable:
        CASES.append(Case(error, message, function))
        return function

    return add
