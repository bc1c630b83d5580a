"""A folder on a server, whose calls are tried a few times and whose errors are one line."""

import errno
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from stp._urls import without_secrets

TRIES = 3
FIRST_PAUSE = 0.3  # seconds before the second try; each pause is twice as long as the last
CONNECT_SECONDS = 5
READ_SECONDS = 20  # without a byte
N_THREADS = 8
WEB = ("http", "https")
REMEDIES = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or choose a profile by AWS_PROFILE",
    "gs": "log in with `gcloud auth application-default login`",
    "http": "check the user, password or token in the address",
}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
Item = TypeVar("Item")
Result = TypeVar("Result")


class RemoteFile(NamedTuple):
    """What a server says of a file.

    Parameters
    ----------
    size
        Number of bytes; None if the server does not tell.
    tag
        Text that changes with the content; "" if the server does not tell.
    """

    size: int | None
    tag: str


class RemoteFolder(ABC):
    """A folder on a server, whose files are read and written whole.

    Each call is tried a few times. An error is one line, and has neither passwords nor tokens.

    Attributes
    ----------
    label : str
        The URL without passwords and tokens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.label = without_secrets(url).rstrip("/")
        self.scheme = url.partition("://")[0].lower()

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a file, or raise FileNotFoundError if there is none."""

    @abstractmethod
    def download(self, name: str, path: Path) -> None:
        """Write a file to a local path."""

    def require_writable(self) -> None:
        """Raise an error if files cannot be written and deleted."""
        raise PermissionError(
            f"{self.label} is on a web server, which cannot be written to; give an address of an "
            "object store such as s3://, or a local folder"
        )

    def try_(self, call: Callable[[], Result]) -> Result:
        """Return the result of a call of the server, or raise an error that names the folder."""
        for number in range(TRIES):
            try:
                return call()
            except Exception as error:  # noqa: BLE001 - of any library
                if number == TRIES - 1 or not _is_transient(error):
                    raise self._explain(error) from None  # the cause may show passwords
                time.sleep(FIRST_PAUSE * 2**number)
        raise AssertionError("unreachable")

    def _explain(self, error: Exception) -> Exception:
        """Return the error to raise in place of that of a library."""
        reason = without_secrets(str(error).partition("\n")[0]) or type(error).__name__
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return OSError(error.errno, f"no space is left for the files of {self.label}")
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(f"{self.label}: {reason}")
        status = _status(error)
        if _is_refusal(error):
            remedy = REMEDIES.get("http" if self.scheme in WEB else self.scheme, "check the login")
            text = reason if status is None else f"status {status}"
            return PermissionError(f"the server refuses access to {self.label} ({text}); {remedy}")
        if status is not None:
            return ConnectionError(f"the server of {self.label} answers with status {status}")
        return ConnectionError(
            f"{self.label} cannot be reached ({reason}); check the address and the network, then "
            "call again: complete files are not transferred again"
        )


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterable[Result]:
    """Yield the results of a few calls at a time, in order; the first error ends all."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        try:
            yield from pool.map(work, items)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _status(error: Exception) -> int | None:
    """Return the status of the server's answer, if the error has one."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, PermissionError) or _status(error) in (401, 403)


def _is_transient(error: Exception) -> bool:
    """Return whether the same call may work a moment later."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | ImportError | ValueError):
        return False
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return False
    status = _status(error)
    if _is_refusal(error) or has_no_login(error):
        return False
    return status is None or status == 429 or status >= 500


def has_no_login(error: Exception) -> bool:
    """Return whether S3 was not asked, because this machine has no credentials."""
    return "Unable to locate credentials" in str(error)
