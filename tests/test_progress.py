"""Progress: a bar for people, lines for log files, nothing if it is switched off."""

import io
import logging
import os
import re
import subprocess
import sys
import types

import pytest

import stp
from stp._progress import Progress, track


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def place(monkeypatch):
    """Return a function that makes standard error a terminal, a notebook or a file.

    It is called in the test itself: between fixtures and test, pytest sets standard error again.
    """

    def make(kind: str) -> io.StringIO:
        output = Terminal() if kind == "terminal" else io.StringIO()
        monkeypatch.setattr("sys.stderr", output)
        if kind == "notebook":
            shell = types.SimpleNamespace(kernel=object())
            ipython = types.SimpleNamespace(get_ipython=lambda: shell)
            monkeypatch.setitem(sys.modules, "IPython", ipython)
        return output

    return make


@pytest.mark.parametrize("kind", ["terminal", "notebook"])
def test_people_see_a_bar(kind, place):
    output = place(kind)
    with Progress(4, "embed genes", "spot", bar_delay=0) as progress:
        progress.update(3)
        progress.note("loss=0.5")
        progress.update()
    assert re.search(r"embed genes: 100%\|[█#]+\| 4/4 .*spot/s, loss=0.5", output.getvalue())


def test_work_that_is_done_at_once_shows_no_bar(place):
    terminal = place("terminal")
    assert list(track("abcd", "embed genes", "spot")) == ["a", "b", "c", "d"]
    assert terminal.getvalue() == ""


def test_a_log_file_has_a_line_for_each_period(place):
    log_file = place("file")
    with Progress(2_000, "embed images", "spot", line_seconds=0) as progress:
        progress.update(500)
        progress.update(1_500)
    first, last = log_file.getvalue().splitlines()
    assert re.fullmatch(r"embed images: 500 of 2,000 spots \(25%\), about \d+ s left", first)
    assert last == "embed images: 2,000 of 2,000 spots (100%), about 0 s left"


def test_a_line_has_the_note(place):
    log_file = place("file")
    with Progress(2, "prepare", "slide", line_seconds=0) as progress:
        progress.note("300 spots, 1 failed")
        progress.update(2)
    assert log_file.getvalue() == (
        "prepare: 2 of 2 slides (100%), about 0 s left; 300 spots, 1 failed\n"
    )


def test_a_log_file_has_no_line_before_half_a_minute(place):
    log_file = place("file")
    list(track(range(1000), "embed images", "spot"))
    assert log_file.getvalue() == ""


def test_without_a_total_a_line_counts_what_is_done(place):
    log_file = place("file")
    with Progress(None, "read", "table", line_seconds=0) as progress:
        progress.update()
        progress.update(4)
    assert log_file.getvalue().splitlines() == [
        "read: 1 table after 0 s",
        "read: 5 tables after 0 s",
    ]


@pytest.mark.parametrize("kind", ["terminal", "notebook", "file"])
@pytest.mark.parametrize("by", ["settings", "argument"])
def test_progress_can_be_switched_off(kind, by, place, monkeypatch):
    output = place(kind)
    if by == "settings":
        monkeypatch.setattr(stp.settings, "progress", False)
    with Progress(
        2, "embed", "spot", is_shown=by == "settings", line_seconds=0, bar_delay=0
    ) as progress:
        progress.update()
    assert output.getvalue() == ""


def test_lines_of_the_log_stand_above_the_bar(place):
    terminal = place("terminal")
    with Progress(2, "embed", "spot", bar_delay=0) as progress:
        progress.update()
        logging.getLogger("stp").info("a line of the log")
    assert re.search(r"(^|[\r\n])a line of the log\n", terminal.getvalue())


def test_a_notebook_without_ipywidgets_gets_no_warning_about_them():
    code = """
import sys, types
shell = types.SimpleNamespace(config={"IPKernelApp": True}, kernel=object())
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
sys.modules["IPython.display"] = types.SimpleNamespace(display=print)
sys.modules["ipykernel.zmqshell"] = types.ModuleType("zmqshell")
sys.modules["ipywidgets"] = None
LINES
"""
    by_stp = """
import stp
try:
    stp.models.load_backbone("Midnight-12k")
except FileNotFoundError:
    print("tqdm.auto" in sys.modules)
"""
    outputs = []
    for lines in ("import tqdm.auto", by_stp):
        command = [sys.executable, "-c", code.replace("LINES", lines)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": "none"}
        outputs.append(
            subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        )
    without_us, with_us = outputs
    assert "IProgress not found" in without_us.stderr  # otherwise this tests nothing
    assert with_us.stdout == "True\n"
    assert with_us.stderr == ""
