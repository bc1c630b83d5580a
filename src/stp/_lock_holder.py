"""The process that has a lock: how a lock file describes it, and whether it has ended."""

import dataclasses
import functools
import json
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Self

UNREADABLE = 30.0  # seconds after which a lock file without a process is that of none


@dataclass(frozen=True)
class Holder:
    """The process that has a lock, as the lock file describes it.

    Parameters
    ----------
    host, pid
        Names of the host and the process, for messages.
    purpose
        What the process does.
    kernel, pid_namespace
        Where the number of the process is unique: containers have the same numbers again.
    start
        Start time of the process, because numbers of processes are used again.
    has_flock
        Whether the process also locked the file with flock.
    token
        A number that no other lock has.
    """

    host: str
    pid: int
    purpose: str
    kernel: str
    pid_namespace: str
    start: str | None
    has_flock: bool
    token: str

    @classmethod
    def of_this_process(cls, purpose: str, has_flock: bool) -> Self:
        """Describe this process."""
        kernel, pid_namespace = _kernel_and_namespace()
        start = _start_time(os.getpid())
        token = uuid.uuid4().hex
        host = socket.gethostname()
        return cls(host, os.getpid(), purpose, kernel, pid_namespace, start, has_flock, token)

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Read a lock file; return None if its process has not written all of it."""
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            return None

    def write(self, descriptor: int) -> None:
        """Write the lock file; other hosts see it, too, when this returns."""
        os.write(descriptor, json.dumps(dataclasses.asdict(self)).encode())
        os.fsync(descriptor)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_local(self) -> bool:
        """Whether this process can see that process by its number."""
        return os.name == "posix" and (self.kernel, self.pid_namespace) == _kernel_and_namespace()

    @property
    def is_running(self) -> bool:
        """Whether that process, which is local, has not ended."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it is of another user
        start = _start_time(self.pid)
        return start is None or self.start is None or start == self.start


def is_stale(file: Path, holder: Holder | None, expires: float) -> bool:
    """Return whether the process that created a lock file has ended.

    On another host, or in another container, its number says nothing. There flock tells that it
    runs, and on the same kernel also that it ended; else the last sign of life counts.
    """
    if holder is None:
        return _seconds_since_touched(file) > min(UNREADABLE, expires)
    if holder.is_local:
        return not holder.is_running
    if holder.has_flock:
        is_locked = _is_locked(file)
        if is_locked:
            return False
        if is_locked is False and holder.kernel == _kernel_and_namespace()[0]:
            return True
    return _seconds_since_touched(file) > expires


def _seconds_since_touched(file: Path) -> float:
    """Return the age of a file by the clock of its file system, not by that of this host."""
    probe = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - file.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _is_locked(file: Path) -> bool | None:
    """Return whether another process has the flock of a file; None if that is unknown."""
    try:
        import fcntl

        with file.open(encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        raise
    except (ImportError, OSError):
        return None
    return False


@functools.cache
def _kernel_and_namespace() -> tuple[str, str]:
    """Return names of the kernel that runs now, and of the process numbers of this container."""
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return kernel, str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return socket.gethostname(), ""


def _start_time(pid: int) -> str | None:
    """Return the start time of a process in ticks, "ended" for a zombie, or None if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    values = text.rpartition(")")[2].split()  # the name before may have spaces
    return "ended" if values[0] in "ZX" else values[19]
