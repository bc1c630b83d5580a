"""Show on the page of a config the fields that it inherits, too."""

import dataclasses
import inspect
import re
from typing import Any

UNDERLINE = re.compile("-{3,}$")


def add_inherited(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Append the parameters of the bases of a dataclass to its own; `lines` change in place."""
    if what != "class" or not dataclasses.is_dataclass(obj):
        return
    _, end = parameter_lines(lines)
    inherited = []
    for base in obj.__mro__[1:]:
        if dataclasses.is_dataclass(base):
            text = inspect.getdoc(base).splitlines()
            inherited += text[slice(*parameter_lines(text))]
    lines[end:end] = inherited


def parameter_lines(lines: list[str]) -> tuple[int, int]:
    """Return where the parameters begin and end, without their heading and without empty lines."""
    if "Parameters" not in lines:
        return len(lines), len(lines)
    start = lines.index("Parameters") + 2
    end = start
    while end < len(lines) and not UNDERLINE.match("".join(lines[end + 1 : end + 2])):
        end += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return start, end
