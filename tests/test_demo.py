"""The demo as a user starts it, and what makes it fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stp import demo
from stp.cli import main

GOOD = {"recall@5": 0.04, "chance@5": 0.01, "pcc": 0.3}


@pytest.mark.slow
def test_demo_trains_predicts_and_reports(tmp_path):
    command = [Path(sys.executable).with_name("stp"), "demo", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    held_out, untrained = summary["held_out"], summary["untrained"]
    assert held_out["recall@5"] >= 3 * held_out["chance@5"]
    assert held_out["pcc"] >= 2 * untrained["pcc"]
    assert held_out["ari_genes"] > 0.3
    assert summary["seconds"]["total"] > 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert {path.stem for path in tmp_path.glob("*.png")} == {"domains", "patches", "expression", "pretrain", "align"}


@pytest.mark.parametrize(
    ("trained", "untrained", "passed"),
    [
        pytest.param(GOOD, {"pcc": 0.1}, True, id="good"),
        pytest.param(GOOD | {"recall@5": 0.029}, {"pcc": 0.1}, False, id="recall near chance"),
        pytest.param(GOOD, {"pcc": 0.16}, False, id="no better than untrained"),
        pytest.param(GOOD | {"pcc": -0.1}, {"pcc": -0.2}, False, id="negative"),
    ],
)
def test_demo_passes_only_when_training_helped(trained, untrained, passed):
    assert demo._passed(trained, untrained) is passed


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "demo" in capsys.readouterr().err
