"""Lock a folder or file, so that one process at a time writes to it, on one host or on several."""

import functools
import os
import threading
import time
import uuid
import weakref
from pathlib import Path
from typing import Self

from stp._lock_holder import Holder, is_stale
from stp._log import logger, warn

HEARTBEAT = 30.0  # seconds between two signs of life of a process that has a lock
EXPIRES = 600.0  # seconds without a sign of life after which a lock of another host is stale
LONGEST_PAUSE = 1.0  # seconds between two tries of a process that waits


def lock(
    path: str | Path,
    purpose: str,
    *,
    wait: bool,
    file: Path | None = None,
    heartbeat: float = HEARTBEAT,
    expires: float = EXPIRES,
) -> "Lock":
    """Return a context in which no other process has the lock of a folder or file.

    A lock is a file that only one process can create. It names the process, which touches it
    while the context lasts. The lock of a process that ended is taken over: at once on the same
    host, and after `expires` seconds without a sign of life from another host.

    Parameters
    ----------
    path
        The folder or file that this process writes to. It need not exist, but its parent must.
    purpose
        What this process does, as messages of other processes name it: "writing to".
    wait
        Wait until another process is done; with False, raise an error instead.
    file
        The lock file; by default a hidden file next to `path`.
    heartbeat
        Seconds between two signs of life.
    expires
        Seconds without a sign of life after which the lock of another host is stale.

    Raises
    ------
    BlockingIOError
        Another process has the lock, and `wait` is False. Entering the context raises it.
    """
    target = Path(path).resolve()
    file = file or target.with_name(f".{target.name}.lock")
    return Lock(target, purpose, file, wait=wait, heartbeat=heartbeat, expires=expires)


class Lock:
    """A lock file while it is waited for, and while this process has it; see :func:`lock`.

    A fork leaves the lock to its parent without further calls.

    Attributes
    ----------
    file : Path
        The lock file.
    """

    def __init__(
        self, path: Path, purpose: str, file: Path, *, wait: bool, heartbeat: float, expires: float
    ) -> None:
        self.path = path
        self.file = file
        self._purpose = purpose
        self._wait = wait
        self._heartbeat = heartbeat
        self._expires = expires
        self._descriptor: int | None = None
        self._holder: Holder | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show_life, daemon=True)

    def __enter__(self) -> Self:
        pause = 0.01
        is_first = True
        while not self._create():
            holder = self._other_holder()
            if holder is not None and not self._wait:
                raise BlockingIOError(_describe_conflict(self.path, self.file, holder))
            if holder is not None and is_first:
                _log_waiting(self.path, self.file, holder)
                is_first = False
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._holder is None or self._holder.pid != os.getpid():
            return  # a fork
        self._stop.set()
        self._thread.join()
        try:
            holder = Holder.read(self.file)
        except FileNotFoundError:  # a user deleted it
            holder = None
        if holder == self._holder:
            self.file.unlink(missing_ok=True)
        elif holder is not None:
            logger.warning(
                f"{holder} took over the lock of {self.path}, because this process gave no sign "
                f"of life for {self._expires:.0f} seconds; check what both wrote"
            )
        self.close()

    def close(self) -> None:
        """Close the lock file; a process that no longer has it open leaves it to its parent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _create(self) -> bool:
        """Create the lock file; return False if there is one."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
        try:
            descriptor = os.open(self.file, flags, 0o644)
        except FileExistsError:
            return False
        try:
            holder = Holder.of_this_process(self._purpose, _lock_descriptor(descriptor, self.file))
            holder.write(descriptor)
        except BaseException:
            self.file.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._holder = holder
        _OPEN.add(self)
        return True

    def _show_life(self) -> None:
        """Touch the lock file from time to time."""
        target: int | Path = self.file
        if os.utime in os.supports_fd and self._descriptor is not None:
            target = self._descriptor  # still that file after another process took over
        while not self._stop.wait(self._heartbeat):
            try:
                os.utime(target)
            except OSError as error:  # such as a network that is down for a moment
                logger.debug(f"{self.file} was not touched: {error}")

    def _other_holder(self) -> Holder | None:
        """Return the process that has the lock; remove the lock of one that ended."""
        try:
            holder = Holder.read(self.file)
            if is_stale(self.file, holder, self._expires):
                self._remove_stale()
                return None
        except FileNotFoundError:
            return None
        return holder

    def _remove_stale(self) -> None:
        """Remove the stale lock file, unless another process does so.

        Only a process that could create a second file removes the first. Otherwise a slow process
        could remove the fresh lock of the process that was faster.
        """
        guard = self.file.with_name(f"{self.file.name}.takeover")
        try:
            descriptor = os.open(guard, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        except FileExistsError:
            if is_stale(guard, Holder.read(guard), self._expires):
                guard.unlink(missing_ok=True)
            return
        try:
            Holder.of_this_process("taking over", has_flock=False).write(descriptor)
            holder = Holder.read(self.file)
            if is_stale(self.file, holder, self._expires):
                stale = self.file.with_name(f"{self.file.name}.{uuid.uuid4().hex}")
                self.file.rename(stale)
                stale.unlink()
                logger.info(f"Took over the lock of {self.path} from {holder or 'a process'}")
        finally:
            os.close(descriptor)
            guard.unlink(missing_ok=True)


# Locks of this process. A fork closes them, because flock lasts until every copy is closed.
_OPEN: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _close_in_fork() -> None:
    for item in list(_OPEN):
        item.close()
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)


def _lock_descriptor(descriptor: int, file: Path) -> bool:
    """Lock an open file with flock, and return whether that worked."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)  # waits only for a glance of another process
    except (ImportError, OSError):
        _warn_without_flock(file.parent)
        return False
    return True


@functools.cache
def _warn_without_flock(folder: Path) -> None:
    warn(
        f"the file system of {folder} has no flock, so that a lock file alone keeps other "
        "processes from writing to it"
    )


def _describe_conflict(path: Path, file: Path, holder: Holder) -> str:
    """Return the error of a process that does not wait."""
    message = (
        f"another process ({holder.pid} on {holder.host}) is {holder.purpose} {path}; "
        "wait for it, or choose another folder"
    )
    return message + _describe_removal(file, holder)


def _log_waiting(path: Path, file: Path, holder: Holder) -> None:
    message = f"Waiting for {holder} to finish {holder.purpose} {path}"
    logger.info(message + _describe_removal(file, holder))


def _describe_removal(file: Path, holder: Holder) -> str:
    """Return what to do if a process of another host, which cannot be seen, has ended."""
    return "" if holder.is_local else f"; if that process has ended, delete {file}"
