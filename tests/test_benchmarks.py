"""Every benchmark starts; the HER2+ run goes from sections to numbers, in its short form."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "her2st"
PEERS = {"many_references": "faiss", "retrieval": "faiss"}


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))
)
def test_a_benchmark_finds_what_it_imports_and_says_what_it_is_for(name):
    if name in PEERS and not importlib.util.find_spec(PEERS[name]):
        pytest.skip(f"{PEERS[name]} is a peer that it is measured beside")
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__
    if hasattr(module, "main"):
        assert f"python -m benchmarks.{name}" in module.__doc__


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is absent")
def test_her2st_runs_the_whole_way(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.her2st",
        "--data",
        DATA,
        "--out",
        tmp_path,
        "--short",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    scores = results["expression"]
    assert len(scores) == 7
    assert np.isfinite([value for one in scores.values() for value in one.values()]).all()
    # What needs no training is the same in the short form: about 0.23 from position, 0.29 from neighbors.
    assert scores["mean profile"]["PCC-V"] == 0
    assert scores["position"]["PCC-V"] == pytest.approx(0.23, abs=0.04)
    assert scores["neighbors in the section (measured)"]["PCC-V"] == pytest.approx(0.29, abs=0.03)
    assert 0 < results["agreement"]["D1"]["PCA fitted on the section"]["ari"] < 1
    assert results["recall"]["chance@5"] == pytest.approx(5 / results["spots"]["C6"])
    assert {path.stem for path in tmp_path.glob("*.png")} >= {
        "patches",
        "clusters",
        "expression",
        "stamp",
    }
