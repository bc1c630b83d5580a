"""Bad input and the errors that it raises.

A test runs each of these functions, and each is an entry of docs/errors. A module is a section with
its docstring as heading. The name of a function is the heading of its entry, its body is the code
of the user, and its docstring has the cause and the remedy.
"""

import inspect
import re
import textwrap
from pathlib import Path

from tests.bad_input import (
    bins,
    cohort,
    collections,
    features,
    genes,
    images,
    manifest,
    models,
    results,
    slide_models,
    slide_scores,
    slides,
    tables,
    training,
)
from tests.bad_input.case import CASES, Case

SECTIONS = (
    slides,
    bins,
    tables,
    genes,
    images,
    manifest,
    collections,
    training,
    models,
    results,
    features,
    cohort,
    slide_models,
    slide_scores,
)


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


def page(folder: Path) -> str:
    """Return all cases as Markdown, each with the error that it raises in a folder."""
    parts = []
    for section in SECTIONS:
        parts.append(f"## {inspect.getdoc(section).rstrip('.')}\n")
        for case in CASES:
            if case.function.__module__ == section.__name__:
                parts += _entry(case, folder / case.function.__name__)
    return "\n".join(parts)


def _entry(case: Case, folder: Path) -> list[str]:
    """Return the paragraphs of one case, which runs in a new folder."""
    folder.mkdir()
    error = case.run(folder)
    message = re.sub(r" at 0x[0-9a-f]+", "", str(error.args[0])).replace(str(folder), "")
    output = textwrap.fill(f"{type(error).__name__}: {message}", 100, break_on_hyphens=False)
    cause, remedy = inspect.getdoc(case.function).split("\n\n")
    return [
        f"### {case.title}\n",
        f"```python\n{case.code}\n```\n",
        f"```text\n{output}\n```\n",
        f"Cause\n: {_indent(cause)}\n\nRemedy\n: {_indent(remedy)}\n",
    ]
