"""What the doctor says of this machine, and of one that is not well."""

import importlib.metadata
import re

import pytest

from stp.cli import doctor
from stp.cli.main import main


@pytest.fixture
def others(monkeypatch):
    """Let importlib.metadata tell other versions: None for what is missing."""
    told, version = {}, importlib.metadata.version

    def tell(name):
        if told.get(name, "") is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return told.get(name) or version(name)

    monkeypatch.setattr(doctor.metadata, "version", tell)
    monkeypatch.setattr(
        doctor.metadata,
        "requires",
        lambda _: ["numpy>=1.26", 'peft; extra == "lora"', "zarr>=3.1.2"],
    )
    told["stp"] = None
    return told


def test_it_says_what_works_and_where(others, capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for part in (
        "ok  numpy: ",
        "ok  CPU: ",
        "attention, plain: works",
        "weight cache: ",
        "the main job can run",
    ):
        assert part in said
    assert "stp is imported from: " in said and "peft: " in said
    assert all(re.match(r"(ok|no|--)  \S", line) for line in said.splitlines()[1:-1])


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"zarr": "3.0.0"}, 'no  zarr: 3.0.0; too old: pip install "zarr>=3.1.2"'),
        ({"numpy": None}, 'no  numpy: missing; pip install "numpy>=1.26"'),
        (
            {"stp": "0.3"},
            "no  package stp: 0.3, of others, is installed beside stp-spatial; pip uninstall stp, then pip",
        ),
    ],
)
def test_what_is_not_well_has_a_remedy_and_status_one(others, told, line, capsys):
    others.update(told)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert line in said and "the main job cannot run" in said


def test_optional_parts_do_not_decide(others, monkeypatch, capsys):
    monkeypatch.setitem(doctor.EXTRAS, "no_such_module", "lora")
    assert main(["doctor"]) == 0
    assert (
        "--  no_such_module: does not (ModuleNotFoundError); pip install 'stp-spatial[lora]'"
        in capsys.readouterr().out
    )


def test_a_check_that_breaks_is_a_line(others, monkeypatch, capsys):
    def devices():
        raise OSError("libcudart is missing")
        yield

    monkeypatch.setattr(doctor, "devices", devices)
    assert main(["doctor"]) == 1
    assert "no  devices: OSError: libcudart is missing; install again" in capsys.readouterr().out
