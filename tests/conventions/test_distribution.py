"""The source distribution and the wheel that is built from it: they hold what they must, and work where installed."""

import importlib.util
import os
import site
import subprocess
import sys
import tarfile
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANSWERS = """
import importlib.metadata, pathlib, stp
said = importlib.metadata.metadata("stp-spatial")
assert said["License-Expression"] == "BSD-3-Clause" and "LICENSE" in said.get_all("License-File")
folder = pathlib.Path(stp.__file__).parent
assert (folder / "py.typed").exists()
assert len(stp.Vocabulary.default()) > 19_000
assert stp.datasets.synthetic_visium(n_rows=6, n_cols=6, um_per_px=4.0)["table"].n_vars > 400
print(folder)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build a source distribution of the tree, and a wheel of what it unpacks to; no network."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", folder, "--target"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and newer
        archive.extractall(folder)
    subprocess.run(
        [*build, "wheel"],
        cwd=folder / source.name.removesuffix(".tar.gz"),
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return names, wheel


def test_the_source_has_all_that_is_tracked(built):
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("this is no checkout")
    assert not {name for name in tracked.stdout.split() if (ROOT / name).is_file()} - built[0]


def test_the_wheel_works_in_an_environment_of_its_own(built, tmp_path):
    """Its dependencies are those of the tests, which are seen from there; stp itself is what was installed."""
    has_pip = importlib.util.find_spec("pip") is not None
    venv.create(tmp_path / "env", with_pip=not has_pip, symlinks=True)
    programs = tmp_path / "env" / "bin"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command):
        done = subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    pip = (
        [sys.executable, "-m", "pip", "--python"]
        if has_pip
        else [programs / "python", "-m", "pip", "--python"]
    )
    run(*pip, programs / "python", "install", "--no-index", "--no-deps", built[1])
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # Named in a file there, folders are searched; what makes stp editable in them is not followed.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    assert run(programs / "stp", "--version").endswith(version("stp-spatial"))
    assert Path(run(programs / "python", "-c", ANSWERS)) == packages / "stp"
