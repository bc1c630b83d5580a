"""The source distribution, and the wheel built from it: their files, and that the wheel works."""

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
CHECK = """
import importlib.metadata, pathlib, stp
metadata = importlib.metadata.metadata("stp-spatial")
assert metadata["License-Expression"] == "BSD-3-Clause"
assert "LICENSE" in metadata.get_all("License-File")
folder = pathlib.Path(stp.__file__).parent
assert (folder / "py.typed").exists()
assert len(stp.Vocabulary.default()) > 19_000
assert stp.datasets.synthetic_visium(n_rows=6, n_cols=6, um_per_px=4.0)["table"].n_vars > 400
print(folder)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build a source distribution, unpack it, and build a wheel from that, without a network.

    Returns the names of its files and the path of the wheel.
    """
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


def test_the_source_has_all_tracked_files(built):
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("this is no checkout")
    assert not {name for name in tracked.stdout.split() if (ROOT / name).is_file()} - built[0]


def test_the_wheel_works_in_a_new_environment(built, tmp_path):
    """Only stp itself is installed there; its dependencies are those of the tests."""
    has_pip = importlib.util.find_spec("pip") is not None
    venv.create(tmp_path / "env", with_pip=not has_pip, symlinks=True)
    programs = tmp_path / "env" / "bin"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command):
        process = subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        return process.stdout.strip()

    pip = (
        [sys.executable, "-m", "pip", "--python"]
        if has_pip
        else [programs / "python", "-m", "pip", "--python"]
    )
    run(*pip, programs / "python", "install", "--no-index", "--no-deps", built[1])
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # Python searches the folders that a .pth file names, but not the .pth files in those folders,
    # which would make stp editable.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    assert run(programs / "stp", "--version").endswith(version("stp-spatial"))
    assert Path(run(programs / "python", "-c", CHECK)) == packages / "stp"
