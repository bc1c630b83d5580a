"""Cross-validation in real processes: killed, and two under torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import anndata
import pytest
import torch
from safetensors.torch import load_file
from tests.cohorts import make_cohort
from tests.forks import Fork

from stp import train
from stp.models import SlideModel

EGFR = train.Classes("EGFR", positive="mutated")
SMALL = {"hidden": 16, "attention": 8, "device": "cpu", "learning_rate": 5e-3}
ROOT = Path(__file__).parents[2]
TORCHRUN = Path(sys.executable).with_name("torchrun")
SCRIPT = """
import sys
from tests.train.test_slide_processes import run_file
file, out, dropout, batch_size, epochs = sys.argv[1:]
run_file(file, out, float(dropout), int(batch_size), int(epochs))
"""
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}


def run_small(cohort, out, dropout=0.25, batch_size=1, epochs=6):
    config = train.SlideConfig(
        epochs=epochs,
        batch_size=batch_size,
        max_tiles=6,
        dropout=dropout,
        patience=100,
        log_every=1,
        checkpoint_every=3,
        **SMALL,
    )
    targets = [EGFR, train.Value("purity")]
    train.cross_validate_slides(cohort, out, targets=targets, fold_key="fold", config=config)


def run_file(file, out, dropout=0.25, batch_size=1, epochs=6):
    run_small(anndata.read_h5ad(file), out, dropout, batch_size, epochs)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    cohort = make_cohort(folder)
    cohort.write_h5ad(folder / "cohort.h5ad")
    return cohort


def weights(folder):
    return {
        f"{path.parent.name}/{name}": tensor
        for path in sorted(folder.glob("fold_*/model.safetensors"))
        for name, tensor in load_file(path).items()
    }


def file_of(cohort):
    return Path(cohort.obs["path"].iloc[0]).with_name("cohort.h5ad")


@pytest.mark.slow
def test_killed_in_the_second_fold_it_resumes_to_the_same_weights(cohort, tmp_path):
    run_small(cohort, tmp_path / "whole")
    out = tmp_path / "killed"
    metrics = out / "fold_1" / "metrics.jsonl"
    process = Fork(run_file, file_of(cohort), out, messages=tmp_path / "messages")
    process.wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 20)
    process.kill()
    assert not (out / "models.json").exists()
    run_small(cohort, out)
    whole, killed = weights(tmp_path / "whole"), weights(out)
    assert len(whole) == len(killed) > 20
    for name, tensor in whole.items():
        torch.testing.assert_close(killed[name], tensor, rtol=0, atol=0, msg=name)
    for fold in ("fold_0", "fold_1", "fold_2"):
        one, two = (SlideModel.from_pretrained(path / fold) for path in (tmp_path / "whole", out))
        assert one.config == two.config
    assert not list(out.glob(".*")) and not list(out.glob("fold_*/.*"))


@pytest.mark.extended
def test_two_processes_equal_one_with_twice_the_batch(cohort, tmp_path):
    run_small(cohort, tmp_path / "one", dropout=0.0, batch_size=2, epochs=2)
    script = tmp_path / "cross_validate.py"
    script.write_text(SCRIPT)
    command = [TORCHRUN, "--standalone", "--nproc-per-node", 2, script, file_of(cohort)]
    command += [tmp_path / "two", 0.0, 1, 2]
    run = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env=ONE_THREAD,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert len(one) == len(two) > 20
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=2e-5, msg=name)
