"""Input that stp refuses, as users meet it: a test runs each of these functions, and each is an entry of docs/errors.

A module is a section, its docstring the heading. The name of a function is the heading of its entry, the body what a
user does, the docstring cause and remedy, and what is printed is raised.
"""

import inspect
import re
import textwrap
from pathlib import Path

from tests.bad_input import genes, images, models, results, slides, training
from tests.bad_input.case import CASES

SECTIONS = (slides, genes, images, training, models, results)


def _hung(text: str) -> str:
    return text.replace("\n", "\n  ")


def page(folder: Path) -> str:
    """Write all cases as Markdown, each with what it raises when it is run in a folder."""
    parts = []
    for section in SECTIONS:
        parts.append(f"## {inspect.getdoc(section).rstrip('.')}\n")
        for case in (case for case in CASES if case.function.__module__ == section.__name__):
            where = folder / case.function.__name__
            where.mkdir()
            error = case.run(where)
            message = re.sub(r" at 0x[0-9a-f]+", "", str(error.args[0])).replace(str(where), "")
            said = textwrap.fill(f"{type(error).__name__}: {message}", 100, break_on_hyphens=False)
            parts += [
                f"### {case.title}\n",
                f"```python\n{case.code}\n```\n",
                f"```text\n{said}\n```\n",
            ]
            cause, remedy = inspect.getdoc(case.function).split("\n\n")
            parts.append(f"Cause\n: {_hung(cause)}\n\nRemedy\n: {_hung(remedy)}\n")
    return "\n".join(parts)
