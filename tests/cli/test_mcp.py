"""`stp mcp`: wrong options end with status 2 and one line, before a client waits."""

import sys

import pytest

from stp.cli.main import main


def refuse(capsys, *arguments):
    with pytest.raises(SystemExit) as error:
        main(["mcp", *map(str, arguments)])
    assert error.value.code == 2
    return capsys.readouterr().err


def test_the_folder_must_exist(capsys, tmp_path):
    assert "there is no folder" in refuse(capsys, "--root", tmp_path / "none")
    (tmp_path / "file").touch()
    assert "is a file" in refuse(capsys, "--root", tmp_path / "file")
    assert "--root" in refuse(capsys)


def test_without_the_package_the_error_has_the_remedy(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    message = "stp mcp: error: mcp is missing; install it with: pip install 'stp-spatial[mcp]'\n"
    assert refuse(capsys, "--root", tmp_path) == message
