"""The files of the house: their sizes, what none of them says, and the commands of README."""

import ast
import re
import statistics
import subprocess
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "stp"
FILES = sorted(SRC.rglob("*.py"))
FILE_LINES, MEDIAN_LINES, BODY_LINES = 300, 120, 60

# Paths of machines, sources of packages, makers. In halves, so that this file holds none of them.
HALVES = """
    /wo|rk/ /ro|ot/ /ho|me/ index-|url index_|url find-|links find_|links python|hosted
    co-|authored cla|ude anth|ropic chat|gpt
"""
FORBIDDEN = HALVES.replace("|", "").split()


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def bodies(source: str) -> dict[str, int]:
    """Count the lines of each function's body, without its docstring and blank lines."""
    lines, sizes = source.splitlines(), {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            span = range(body[0].lineno - 1, body[-1].end_lineno) if body else ()
            sizes[f"{node.name}:{node.lineno}"] = sum(bool(lines[line].strip()) for line in span)
    return sizes


def test_files_are_short() -> None:
    sizes = {str(file.relative_to(SRC)): len(lines_of(file)) for file in FILES}
    assert not {name: size for name, size in sizes.items() if size > FILE_LINES}
    assert statistics.median(sizes.values()) < MEDIAN_LINES


def test_functions_are_short() -> None:
    sizes = {
        f"{file.relative_to(SRC)}:{name}": n
        for file in FILES
        for name, n in bodies(file.read_text()).items()
    }
    assert not {name: size for name, size in sizes.items() if size > BODY_LINES}


def test_the_count_itself() -> None:
    docstring = '    """Say.\n\n    More.\n    """\n'
    assert bodies(
        f"def f(\n    a,\n):\n{docstring}    b = (\n\n        a\n    )\n    return b\n"
    ) == {"f:1": 4}


@pytest.fixture(scope="module")
def repository() -> list[Path]:
    """All files that are in the repository, or would be after the next commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_the_project_speaks_of_itself(repository: list[Path]) -> None:
    texts = {
        str(path.relative_to(ROOT)): path.read_bytes().decode(errors="ignore").lower()
        for path in repository
    }
    assert len(texts) > len(FILES)
    found = {name: [word for word in FORBIDDEN if word in text] for name, text in texts.items()}
    assert not {name: words for name, words in found.items() if words}


def readme_commands() -> list[str]:
    """Return the commands of README, each a fenced block of one line that begins with a new environment."""
    blocks = re.findall(
        r"^```bash\n(.*?)\n```$", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE
    )
    return [block for block in blocks if block.startswith("python3 -m venv ")]


def test_readme_has_two_commands() -> None:
    job, tests = readme_commands()
    assert re.search(r"/bin/stp demo --out \S+$", job)
    assert re.search(r"/bin/python -m pytest$", tests)
    for command in (job, tests):
        environment = re.match(r"python3 -m venv (\.venv[\w-]*) && ", command)[1]
        assert f" && {environment}/bin/pip install " in command
        assert "\n" not in command
        assert not re.search(r"torch|index|http|--find|=", command), (
            "as a user types it: no pin, no source of packages"
        )


def test_ci_runs_the_test_command_of_readme() -> None:
    """It takes the command from README by a line of its own, which is run here too."""
    script = (ROOT / ".ci" / "run").read_text()
    extraction = re.search(r"^command=\$\((.+)\)$", script, flags=re.MULTILINE)[1]
    taken = subprocess.run(
        ["bash", "-c", extraction], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert taken.strip() == readme_commands()[1]
    assert 'bash -c "$command"' in script
    assert "-m pytest" not in script.replace(extraction, "")


def test_ci_fails_on_any_error() -> None:
    file = ROOT / ".ci" / "run"
    assert file.stat().st_mode & 0o111
    assert "set -euo pipefail" in file.read_text()
    assert subprocess.run(["bash", "-n", file], check=False).returncode == 0


def test_warnings_in_stp_are_errors() -> None:
    """As pytest is told to take those that stp itself sets off; what it tells its callers stays a warning."""
    with pytest.raises(FutureWarning):
        warnings.warn_explicit("old", FutureWarning, "_embed.py", 1, module="stp.tl._embed")
    with pytest.warns(FutureWarning):
        warnings.warn_explicit("old", FutureWarning, "script.py", 1, module="script")
