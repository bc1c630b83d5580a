"""Text files are UTF-8, whatever the locale of the machine."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "stp"
# Functions that open a text file, with the position of the mode if there is one.
READERS_AND_WRITERS = ("read_text", "write_text", "read_csv", "to_csv", "loadtxt", "savetxt")
NO_FILES = ("PIL.Image", "zarr", "os", "cls", "Corpus", "StringIO")


def calls_without_encoding(source):
    """Return the lines of calls that open a text file without an encoding."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and opens_text(node):
            if "encoding" not in [keyword.arg for keyword in node.keywords]:
                lines.append(node.lineno)
    return lines


def opens_text(call):
    name, owner = ast.unparse(call.func), ""
    if isinstance(call.func, ast.Attribute):
        name, owner = call.func.attr, ast.unparse(call.func.value)
    if name in READERS_AND_WRITERS:
        return not any(ast.unparse(argument).startswith("StringIO") for argument in call.args)
    if name != "open" or owner in NO_FILES:
        return False
    modes = [*call.args[0 if owner else 1 :], *(word.value for word in call.keywords)]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
    return not any("b" in text for text in texts if isinstance(text, str))


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.name)
def test_text_files_are_opened_as_utf8(path):
    lines = calls_without_encoding(path.read_text(encoding="utf-8"))
    assert not lines, f'{path} opens text without encoding="utf-8" in lines {lines}'


@pytest.mark.parametrize(
    ("call", "is_found"),
    [
        ("path.read_text()", True),
        ('path.write_text("a")', True),
        ("path.open()", True),
        ('path.open("w")', True),
        ('open("a")', True),
        ('open("a", "r")', True),
        ("pd.read_csv(path)", True),
        ('path.open("rb")', False),
        ('open("a", mode="wb")', False),
        ('path.read_text(encoding="utf-8")', False),
        ("pd.read_csv(StringIO(text))", False),
        ("zarr.open(path)", False),
    ],
)
def test_the_guard_finds_what_it_is_for(call, is_found):
    assert bool(calls_without_encoding(call)) == is_found
