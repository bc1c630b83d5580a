"""The report of `stp doctor` on this machine, and on a broken installation."""

import importlib.metadata
import re
from pathlib import Path

import pytest

import stp
from stp.cli import doctor
from stp.cli.main import main


@pytest.fixture
def versions(monkeypatch):
    """Let importlib.metadata report other versions: None for a missing package."""
    versions = {"stp": None}
    real_version = importlib.metadata.version

    def version(name):
        if name in versions and versions[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real_version(name)

    requirements = ["numpy>=1.26", 'peft>=0.14; extra == "lora"', "zarr>=3.1.2", "scipy>=1.13,<9"]
    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(doctor, "DATA_PACKAGES", ("zarr",))  # the others take seconds
    return versions


def test_it_says_what_works_and_where(versions, capsys):
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    for part in (
        "ok  numpy: ",
        "ok  CPU: ",
        "attention, plain: works",
        "weight cache: ",
        "the main job can run",
    ):
        assert part in output
    assert f"stp is imported from: {Path(stp.__file__).parent}\n" in output
    assert "peft: " in output
    assert all(re.match(r"(ok|no|--)  \S", line) for line in output.splitlines()[1:-1])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"zarr": "3.0.0"}, 'no  zarr: 3.0.0; must be >=3.1.2: pip install "zarr>=3.1.2"'),
        ({"scipy": "9.0"}, 'no  scipy: 9.0; must be <9,>=1.13: pip install "scipy<9,>=1.13"'),
        ({"numpy": None}, 'no  numpy: missing; pip install "numpy>=1.26"'),
        (
            {"stp": "0.3"},
            "no  package stp: 0.3, an unrelated package, is installed along with stp-spatial; "
            "pip uninstall stp, then pip",
        ),
    ],
)
def test_what_is_not_well_has_a_remedy_and_status_one(versions, changes, line, capsys):
    versions.update(changes)
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert line in output
    assert "the main job cannot run" in output


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("raise OSError('libhdf5 is missing\\nsecond line')", "OSError: libhdf5 is missing"),
        ("import os; os._exit(3)", "Python ended with status 3"),
    ],
    ids=["error", "crash"],
)
def test_a_package_that_cannot_be_imported_is_a_line(
    code, result, versions, monkeypatch, tmp_path, capsys
):
    (tmp_path / "broken_package.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "DATA_PACKAGES", ("zarr", "broken_package"))
    assert main(["doctor"]) == 1
    remedy = "install it again: pip install --force-reinstall broken_package"
    assert f"no  import broken_package: {result}; {remedy}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "line"),
    [
        (None, "--  peft: missing, for lora; pip install 'stp-spatial[lora]'"),
        ("0.1", "no  peft: 0.1, for lora; must be >=0.14: pip install 'stp-spatial[lora]'"),
        ("0.14", "ok  peft: 0.14, for lora"),
    ],
)
def test_optional_parts_do_not_decide(versions, version, line, capsys):
    versions["peft"] = version
    assert main(["doctor"]) == 0
    assert f"{line}\n" in capsys.readouterr().out


def test_a_check_that_breaks_is_a_line(versions, monkeypatch, capsys):
    def devices():
        raise OSError("libcudart is missing")
        yield

    monkeypatch.setattr(doctor, "devices", devices)
    assert main(["doctor"]) == 1
    assert "no  devices: OSError: libcudart is missing; install again" in capsys.readouterr().out
