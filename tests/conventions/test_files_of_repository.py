"""The length of files, and the commands of README and of continuous integration."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "stp"
CI_SCRIPT = ROOT / ".ci" / "run"
MAX_LINES = 300


def readme_commands() -> list[str]:
    """Return the commands of README: fenced blocks that begin with a new environment."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)\n```$", readme, flags=re.DOTALL | re.MULTILINE)
    return [block for block in blocks if block.startswith("python3 -m venv ")]


def test_files_are_short() -> None:
    n_lines = {
        str(file.relative_to(SRC)): len(file.read_text().splitlines()) for file in SRC.rglob("*.py")
    }
    assert not {name: n for name, n in n_lines.items() if n > MAX_LINES}


def test_links_lead_to_files_of_the_repository() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    links = [line.split("\t")[1] for line in listing.stdout.splitlines() if line[:6] == "120000"]
    assert links == ["docs/tutorials"]
    for link in links:
        target = (ROOT / link).readlink()
        assert not target.is_absolute()
        assert (ROOT / link).resolve().is_relative_to(ROOT.resolve())


def test_readme_has_two_commands() -> None:
    demo, tests = readme_commands()
    assert re.search(r"/bin/stp demo --out \S+$", demo)
    assert re.search(r"/bin/python -m pytest$", tests)
    for command in (demo, tests):
        environment = re.match(r"python3 -m venv (\.venv[\w-]*) && ", command)[1]
        assert f" && {environment}/bin/pip install " in command
        assert "\n" not in command
        # As a user types it: without pinned versions or sources of packages.
        assert not re.search(r"torch|index|http|--find|=", command)


def test_ci_runs_the_test_command_of_readme() -> None:
    assert f"\n({readme_commands()[1]})\n" in CI_SCRIPT.read_text()


def test_ci_fails_on_any_error() -> None:
    assert CI_SCRIPT.stat().st_mode & 0o111
    assert "\nset -euo pipefail\n" in CI_SCRIPT.read_text()
    assert subprocess.run(["bash", "-n", CI_SCRIPT], check=False).returncode == 0
