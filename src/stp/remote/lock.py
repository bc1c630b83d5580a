"""Lock a folder on a server, so that one process at a time writes to it."""

import dataclasses
import json
import threading
import uuid
from typing import Self

from stp._lock import EXPIRES, HEARTBEAT
from stp._lock_holder import Holder
from stp._log import logger
from stp.remote.objects import ObjectFolder


class RemoteLock:
    """A lock file on a server while this process has it.

    Only one process can create the file. It names the process, which writes it again while the
    context lasts. The lock of a process that ended is taken over: at once on the same host, and
    after `expires` seconds without a sign of life from another host.

    Parameters
    ----------
    folder
        Folder on the server.
    name
        Name of the lock file.
    purpose
        What this process does, as messages of other processes name it: "writing to".
    heartbeat
        Seconds between two signs of life.
    expires
        Seconds without a sign of life after which the lock of another host is stale.

    Raises
    ------
    BlockingIOError
        Another process has the lock. Entering the context raises it.
    """

    def __init__(
        self,
        folder: ObjectFolder,
        name: str,
        purpose: str,
        *,
        heartbeat: float = HEARTBEAT,
        expires: float = EXPIRES,
    ) -> None:
        self._folder = folder
        self._name = name
        self._heartbeat = heartbeat
        self._expires = expires
        self._holder = Holder.of_this_process(purpose, has_flock=False)
        self._content = json.dumps(dataclasses.asdict(self._holder)).encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show_life, daemon=True)

    def __enter__(self) -> Self:
        while not self._folder.create(self._name, self._content):
            try:
                holder = self._other_holder()
                if not self._is_stale(holder):
                    raise BlockingIOError(self._describe_conflict(holder))
            except FileNotFoundError:  # the other process is done
                continue
            self._folder.delete([self._name])
            logger.info(f"Took over the lock of {self._folder.label} from {holder or 'a process'}")
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._thread.join()
        try:
            if self._is_own():
                self._folder.delete([self._name])
        except OSError as error:  # the next call takes the lock over
            logger.warning(f"the lock of {self._folder.label} was not removed: {error}")

    def require(self) -> None:
        """Raise BlockingIOError if another process took over the lock, or a user deleted it."""
        if not self._is_own():
            raise BlockingIOError(
                f"this process no longer has the lock of {self._folder.label}, because it gave no "
                f"sign of life for {self._expires:.0f} seconds or the lock was deleted; call again "
                "when no other process writes there"
            )

    def _is_own(self) -> bool:
        try:
            return self._folder.read(self._name) == self._content
        except FileNotFoundError:
            return False

    def _other_holder(self) -> Holder | None:
        try:
            return Holder(**json.loads(self._folder.read(self._name)))
        except (ValueError, TypeError):
            return None

    def _is_stale(self, holder: Holder | None) -> bool:
        """Return whether the process that has the lock ended."""
        if holder is not None and holder.is_local:
            return not holder.is_running
        probe = f"{self._name}.{uuid.uuid4().hex}"
        self._folder.write(probe, b" ")
        try:
            age = self._folder.modified(probe) - self._folder.modified(self._name)
        finally:
            self._folder.delete([probe])
        return age > self._expires

    def _show_life(self) -> None:
        """Write the lock file again from time to time."""
        while not self._stop.wait(self._heartbeat):
            try:
                if self._is_own():
                    self._folder.write(self._name, self._content)
            except Exception as error:  # noqa: BLE001 - such as a network that is down for a moment
                logger.debug(f"the lock of {self._folder.label} was not written: {error}")

    def _describe_conflict(self, holder: Holder | None) -> str:
        process = "process" if holder is None else f"process ({holder.pid} on {holder.host})"
        purpose = "writing to" if holder is None else holder.purpose
        message = (
            f"another {process} is {purpose} {self._folder.label}; wait for it, or choose another "
            "address"
        )
        if holder is not None and holder.is_local:
            return message
        file = f"{self._folder.label}/{self._name}"
        return f"{message}; if that process has ended, delete {file}"
