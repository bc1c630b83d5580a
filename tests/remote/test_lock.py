"""The lock of a folder on a server: one process has it, and those that ended lose it."""

import json

import pytest

from stp.remote.lock import RemoteLock
from stp.remote.objects import ObjectFolder


@pytest.fixture(params=["s3", "memory"])
def folder(request, tmp_path):
    if request.param == "s3":
        return ObjectFolder(request.getfixturevalue("s3").url("out"))
    return ObjectFolder(f"memory://{tmp_path.name}")


def change(folder, **facts):
    """Let the lock be that of another process."""
    holder = json.loads(folder.read(".lock"))
    folder.write(".lock", json.dumps(holder | facts).encode())


def test_one_process_at_a_time_has_the_lock(folder):
    with RemoteLock(folder, ".lock", "preparing") as lock:
        lock.require()
        with pytest.raises(BlockingIOError, match=rf"is preparing {folder.label}; wait for it"):
            RemoteLock(folder, ".lock", "preparing").__enter__()
    assert not folder.list_files()
    with RemoteLock(folder, ".lock", "preparing"):
        assert set(folder.list_files()) == {".lock"}


def test_the_lock_of_a_process_that_ended_is_taken_over(folder):
    with RemoteLock(folder, ".lock", "preparing") as former:
        change(folder, start="1")  # the same number, and another process
        with RemoteLock(folder, ".lock", "preparing") as lock:
            lock.require()
            with pytest.raises(BlockingIOError, match="no longer has the lock"):
                former.require()
        assert not folder.list_files()


def test_the_lock_of_another_host_is_taken_over_after_some_time(folder):
    with RemoteLock(folder, ".lock", "preparing"):
        change(folder, kernel="other", host="far")
        with pytest.raises(BlockingIOError, match=r"on far\).*if that process has ended, delete"):
            RemoteLock(folder, ".lock", "preparing").__enter__()
        assert set(folder.list_files()) == {".lock"}
        with RemoteLock(folder, ".lock", "preparing", expires=-1):
            assert b"far" not in folder.read(".lock")


def test_signs_of_life_keep_the_lock(folder):
    with RemoteLock(folder, ".lock", "preparing", heartbeat=0.01) as lock:
        before = folder.modified(".lock")
        while folder.modified(".lock") == before:
            pass
        lock.require()
