"""The list of commands."""

import subprocess
import sys

import pytest

from stp.cli.main import main

HEAVY = ("anndata", "scanpy", "spatialdata", "squidpy", "timm", "torch")


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "demo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["demo", "pretrain", "align", "embed", "release-check", "doctor"]
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"usage: stp {command}" in capsys.readouterr().out


def test_the_list_of_commands_loads_no_heavy_package():
    code = f"import sys, stp.cli.main; print(*[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
