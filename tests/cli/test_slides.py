"""`stp slides`: the file of a study, what would fail, and each step."""

import pytest
from tests.cohorts import write_study

from stp.cli.main import main


def run(step, *arguments):
    return main(["slides", step, *map(str, arguments)])


def refuse(capsys, step, *arguments):
    """Run a step that ends with status 2, and return its message."""
    with pytest.raises(SystemExit) as error:
        run(step, *arguments)
    assert error.value.code == 2
    return capsys.readouterr().err


def test_all_steps(tmp_path):
    file = write_study(tmp_path)
    assert run("check", file) == 0
    assert run("cross-validate", file) == 0
    assert run("fit", file) == 0
    assert run("predict", file) == 0
