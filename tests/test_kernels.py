"""Caches that cannot be written stop nothing: real processes without a place for them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

KERNEL = """
from stp._kernels import compile_kernel

@compile_kernel()
def double(n):
    return 2 * n

@compile_kernel(fastmath=("reassoc",))
def double_sum(values):
    total = 0.0
    for value in values:
        total += double(value)
    return total
"""
CALL = """
import os, shutil, sys
import numpy as np
import kernel
cache = os.environ.get("NUMBA_CACHE_DIR")
if cache and sys.argv[1:] == ["disappears"]:
    shutil.rmtree(cache)
    open(cache, "w").close()
if cache and sys.argv[1:] == ["damaged"]:
    for folder, _, files in os.walk(cache):
        for file in files:
            open(os.path.join(folder, file), "w").close()
print(kernel.double_sum(np.arange(4.0)))
"""


def without_caches(**variables):
    """Return an environment in which no default place of a cache can be written, even by root."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    }
    return {**environment, "HOME": "/proc/nothing", "PYTHONPATH": str(SOURCE), **variables}


def run(code, folder, *arguments, **variables):
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=without_caches(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip(), process.stderr


@pytest.fixture
def folder(tmp_path):
    """A folder with kernels, in which Numba cannot make the folder of its cache."""
    (tmp_path / "kernel.py").write_text(KERNEL)
    (tmp_path / "__pycache__").touch()
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="nothing can be written to /proc on Linux")
@pytest.mark.parametrize("place", [None, "/proc/nothing"])
def test_without_a_cache_kernels_compile_and_say_once_where_to_point_it(place, folder):
    variables = {} if place is None else {"NUMBA_CACHE_DIR": place}
    result, messages = run(CALL, folder, **variables)
    assert result == "12.0"
    assert messages.count("set NUMBA_CACHE_DIR to a folder that can be written") == 1


def test_a_cache_that_can_be_written_is_used_in_silence(folder):
    cache = folder / "cache"
    times = []
    for _ in range(2):
        result, messages = run(CALL, folder, NUMBA_CACHE_DIR=str(cache))
        assert result == "12.0"
        assert "NUMBA_CACHE_DIR" not in messages
        times.append({file.name: file.stat().st_mtime_ns for file in cache.rglob("*.nb?")})
    assert len([name for name in times[0] if name.startswith("kernel.double_sum")]) == 2
    assert times[1] == times[0]  # the second process compiles nothing


@pytest.mark.parametrize("fault", ["disappears", "damaged"])
def test_a_cache_that_fails_later_stops_no_call(fault, folder):
    cache = folder / "cache"
    run(CALL, folder, NUMBA_CACHE_DIR=str(cache))
    result, messages = run(CALL, folder, fault, NUMBA_CACHE_DIR=str(cache))
    assert result == "12.0"
    assert messages.count("NUMBA_CACHE_DIR") == 1


VERB = """
import stp
slide = stp.datasets.synthetic_visium(n_rows=8, n_cols=8)
stp.io.write_store(slide, "slide.zarr", patch_um_per_px=2.0)
vocabulary = stp.Vocabulary.default().fit(["slide.zarr"])
stp.tl.tokenize(slide["table"], vocabulary)
stp.pl.patches(slide)
stp.pl.patches(slide)
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="nothing can be written to /proc on Linux")
def test_verbs_of_a_package_that_cannot_be_written_say_once_where_caches_may_lie(tmp_path):
    package = tmp_path / "stp"
    shutil.copytree(SOURCE / "stp", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *package.rglob("*/")]:
        (folder / "__pycache__").touch()
    result, messages = run(VERB, tmp_path, PYTHONPATH=str(tmp_path))
    assert result.endswith("done")
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        assert messages.count(name) == 1, messages
