"""Wrong paths on the command line: one line with the remedy, before heavy packages are imported."""

import subprocess
import sys
import time

import pytest

from stp.cli.main import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder with an empty folder and a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pretrain absent.toml", "there is no file absent.toml; give a TOML file"),
        ("align folder", "folder is a folder; give a TOML file"),
        ("pretrain file", "file is no TOML"),
        ("embed absent.zarr b.zarr --model m", "no store at absent.zarr, b.zarr; give SpatialData"),
        ("demo --out file", "file is a file; give a folder for the output"),
        ("demo --out file/inside", "file is a file; give a folder for the output"),
        ("release-check absent folder file", "there is no file absent; give the authors'"),
        ("release-check file absent file", "there is no folder absent; give the folder of"),
        ("release-check file file file", "file is a file; give the folder of the authors' gene"),
        ("release-check file folder absent", "there is no section at absent"),
    ],
)
def test_a_wrong_path_is_one_line_with_the_remedy(command, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(command.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"stp {command.split()[0]}: error: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["pretrain absent.toml", "demo --out file", "align folder"])
def test_the_line_comes_within_five_seconds(command):
    code = "import sys; from stp.cli.main import main; sys.exit(main())"
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", code, *command.split()], capture_output=True, text=True
    )
    assert time.perf_counter() - start < 5
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
