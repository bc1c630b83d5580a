"""Locks between real processes: two that wait, ones that are killed, forks and other hosts."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stp._lock import lock

# Each process adds numbers to a file, as a reader and writer that must not be disturbed.
COUNT = """
import sys
from pathlib import Path
from stp._lock import lock
counter = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with lock(counter, "writing to", wait=True):
        number = int(counter.read_text())
        counter.write_text("")
        counter.write_text(str(number + 1))
"""

# A process that has the lock until its input ends.
HOLD = """
import sys
from pathlib import Path
from stp._lock import lock
with lock(Path(sys.argv[1]), "writing to", wait=True, heartbeat=float(sys.argv[2])):
    print("locked", flush=True)
    sys.stdin.read()
"""

# A process that has the lock, and a fork of it that leaves the context when its input ends.
FORK = """
import os, sys, time
from pathlib import Path
from stp._lock import lock
with lock(Path(sys.argv[1]), "writing to", wait=True):
    if os.fork():
        time.sleep(60)
    print("forked", flush=True)
    sys.stdin.read()
print("left", flush=True)
"""


def lock_file(path):
    return path.with_name(f".{path.name}.lock")


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(tmp_path):
    """A process that has the lock of a store."""
    with start(HOLD, tmp_path / "a.zarr", 0.05) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def edit(file, **values):
    """Change what a lock file says of its process."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def age(file, seconds):
    stamp = time.time() - seconds
    os.utime(file, (stamp, stamp))


def test_processes_take_turns(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start(COUNT, counter, 30) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert counter.read_text() == "90"
    assert list(tmp_path.iterdir()) == [counter]


def test_a_process_that_does_not_wait_learns_which_process_writes(tmp_path, holder):
    expected = rf"another process \({holder.pid} on .*\) is writing to .*a\.zarr; wait for it, or"
    with pytest.raises(BlockingIOError, match=expected):
        lock(tmp_path / "a.zarr", "training in", wait=False).__enter__()
    holder.stdin.close()
    holder.wait()
    with lock(tmp_path / "a.zarr", "training in", wait=False):
        assert json.loads(lock_file(tmp_path / "a.zarr").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_two_names_of_one_folder_have_one_lock(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a.zarr")
    with lock(tmp_path / "a.zarr", "writing to", wait=False), pytest.raises(BlockingIOError):
        lock(tmp_path / "link", "writing to", wait=False).__enter__()


def test_waiting_is_logged_once(tmp_path, holder, caplog):
    threading.Timer(0.2, holder.stdin.close).start()
    with lock(tmp_path / "a.zarr", "writing to", wait=True):
        pass
    (message,) = caplog.messages
    assert message.startswith(f"Waiting for process {holder.pid} on ")
    assert message.endswith(f" to finish writing to {tmp_path / 'a.zarr'}")


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    with lock(tmp_path / "a.zarr", "writing to", wait=True):
        pass
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_zombie_is_taken_over(tmp_path, holder):
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    with lock(tmp_path / "a.zarr", "writing to", wait=True):
        pass


def test_many_processes_take_over_one_after_the_other(tmp_path, holder):
    counter = tmp_path / "counter"
    counter.write_text("0")
    holder.kill()
    holder.wait()
    lock_file(tmp_path / "a.zarr").rename(lock_file(counter))
    processes = [start(COUNT, counter, 1) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert counter.read_text() == "4"


def test_a_number_that_another_process_has_now_is_not_the_process_that_ended(tmp_path, holder):
    edit(lock_file(tmp_path / "a.zarr"), start="1", pid=os.getpid())
    with lock(tmp_path / "a.zarr", "writing to", wait=True):
        pass


@pytest.mark.parametrize("has_flock", [True, False])
def test_another_host_loses_its_lock_when_it_is_silent_for_long(tmp_path, holder, has_flock):
    store = tmp_path / "a.zarr"
    holder.kill()
    holder.wait()
    edit(lock_file(store), kernel="other", host="node7", has_flock=has_flock)
    age(lock_file(store), 500)
    expected = r"\(\d+ on node7\).*; if that process has ended, delete .*\.a\.zarr\.lock"
    with pytest.raises(BlockingIOError, match=expected):
        lock(store, "writing to", wait=False).__enter__()
    age(lock_file(store), 700)
    with lock(store, "writing to", wait=False):
        pass


def test_another_host_that_gives_signs_of_life_keeps_its_lock(tmp_path, holder):
    """The lock of the process is 100 hours old; its next sign of life makes it new."""
    store = tmp_path / "a.zarr"
    edit(lock_file(store), kernel="other", has_flock=False)
    age(lock_file(store), 360_000)
    deadline = time.monotonic() + 10
    while time.time() - lock_file(store).stat().st_mtime > 60:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(BlockingIOError):
        lock(store, "writing to", wait=False).__enter__()


def test_a_suspended_process_of_another_host_keeps_its_lock_by_flock(tmp_path, holder):
    store = tmp_path / "a.zarr"
    holder.send_signal(signal.SIGSTOP)
    edit(lock_file(store), kernel="other")
    age(lock_file(store), 700)
    with pytest.raises(BlockingIOError):
        lock(store, "writing to", wait=False).__enter__()
    holder.send_signal(signal.SIGCONT)


def test_a_container_of_this_host_that_ended_is_recognized_by_flock(tmp_path, holder):
    store = tmp_path / "a.zarr"
    edit(lock_file(store), pid_namespace="pid:[1]", pid=os.getpid())
    with pytest.raises(BlockingIOError):
        lock(store, "writing to", wait=False).__enter__()
    holder.kill()
    holder.wait()
    with lock(store, "writing to", wait=False):
        pass


def test_a_lock_file_that_names_no_process_is_replaced_after_a_while(tmp_path):
    file = lock_file(tmp_path / "a.zarr")
    file.touch()
    age(file, 40)
    with lock(tmp_path / "a.zarr", "writing to", wait=False):
        pass


def test_a_clock_that_is_behind_does_not_matter(tmp_path, holder, monkeypatch):
    """Age is measured by the clock of the file system, not by that of this host."""
    edit(lock_file(tmp_path / "a.zarr"), kernel="other", has_flock=False)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with pytest.raises(BlockingIOError):
        lock(tmp_path / "a.zarr", "writing to", wait=False).__enter__()


def test_a_fork_that_outlives_its_parent_leaves_no_lock(tmp_path):
    store = tmp_path / "a.zarr"
    with start(FORK, store) as process:
        assert process.stdout.readline() == "forked\n"
        process.kill()
        process.wait()
        edit(lock_file(store), pid_namespace="pid:[1]")  # so that flock counts
        with lock(store, "writing to", wait=False):
            process.stdin.close()
            assert process.stdout.readline() == "left\n"
            assert json.loads(lock_file(store).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_flock_is_locked_by_the_file_alone(tmp_path, name, monkeypatch):
    import errno
    import fcntl

    def flock(*_):
        raise OSError(getattr(errno, name), name)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="has no flock") as warnings:
        for _ in range(2):
            with lock(tmp_path / "a", "writing to", wait=True), pytest.raises(BlockingIOError):
                lock(tmp_path / "a", "writing to", wait=False).__enter__()
    assert len(warnings) == 1
    assert Path(warnings[0].filename) == Path(__file__)


def test_a_lock_that_was_taken_over_stays_with_the_other(tmp_path, caplog):
    file = lock_file(tmp_path / "a")
    with lock(tmp_path / "a", "writing to", wait=True):
        edit(file, token="of another", host="node7")
    assert file.exists()
    assert "on node7 took over the lock of" in caplog.text
