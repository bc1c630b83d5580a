"""The list of commands."""

import subprocess
import sys

import pandas as pd
import pytest

from stp.cli.main import main
from stp.data.collection import Collection
from stp.data.store import SpotStore

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


def test_a_warning_is_shown_without_the_line_of_the_script(stores, tmp_path):
    """The line is that of the script that starts the command, which is no use to anyone."""
    digests = [SpotStore(path).digest for path in stores]
    table = pd.DataFrame({"name": ["a", "b", "c"], "path": map(str, stores), "digest": digests})
    table["problem"] = ["", "it is blurred", ""]
    Collection(table, tmp_path).write(tmp_path / "collection.parquet")
    script = tmp_path / "stp"
    script.write_text("from stp.cli.main import main\nmain()\n")
    command = [sys.executable, script, "vocabulary", tmp_path, "--out", tmp_path / "means.parquet"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == (
        "Warning: 1 of 3 stores are left out, because they cannot be trained on (1 store: it is "
        "blurred)\n"
    )
