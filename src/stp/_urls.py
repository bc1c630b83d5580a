"""Addresses of remote files, and how they are shown without passwords and tokens."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# A scheme as in s3://, or several as in zip::s3://; a drive of Windows has one letter.
_SCHEME = r"[A-Za-z][\w+.-]+(?:::[\w+.-]+)*"
_URL = re.compile(_SCHEME + "://")
_SHORTENED = re.compile(_SCHEME + ":/(?!/)")
_IN_TEXT = re.compile(rf"({_SCHEME})://(\S*)")
_WEB = ("http", "https")


def as_url(path: Any) -> str | None:
    """Return the URL of a remote file or folder, or None for a path on a local disk.

    Addresses with file:// are local.

    Raises
    ------
    ValueError
        The path is a URL that `pathlib.Path` changed.
    """
    url = _find_url(path)
    if url is not None and not _URL.match(str(path)):
        raise ValueError(
            f"{without_secrets(url)} was given as a Path, which removes a slash of a URL; pass it "
            "as text"
        )
    return url


def shown_if_remote(path: Any) -> str | None:
    """Return the URL of a remote file or folder without secrets, or None for a local path."""
    url = _find_url(path)
    return None if url is None else without_secrets(url)


def require_local(path: str | os.PathLike, what: str) -> Path:
    """Return a path to write to.

    Parameters
    ----------
    path
        A path, or what may be a URL.
    what
        What is written, in the plural, for the error.

    Raises
    ------
    ValueError
        That is a URL, of which `pathlib.Path` would make a local folder.
    """
    remote = shown_if_remote(path)
    if remote is not None:
        raise ValueError(
            f"{remote} is remote, and {what} are written on local disks only; write to a local "
            "path, and upload that"
        )
    return Path(path)


def _find_url(path: Any) -> str | None:
    """Return a URL with both slashes, also if `pathlib.Path` removed one; None for a local path."""
    is_path = isinstance(path, str | os.PathLike) or hasattr(path, "protocol")
    text = str(path) if is_path else ""
    if text.startswith("file:/"):
        return None
    if isinstance(path, os.PathLike) and _SHORTENED.match(text):
        return text.replace(":/", "://", 1)
    return text if _URL.match(text) else None


def without_secrets(text: str) -> str:
    """Return a URL, or a text with URLs, without what may grant access.

    User names, passwords, queries and fragments are left out, and other text stays as it is.
    """
    return _IN_TEXT.sub(lambda match: f"{match[1]}://{_shown(match[1], match[2])}", text)


def url_name(url: str) -> str:
    """Return the last part of the path of a URL, as the name of a file or folder.

    Characters that some file systems do not allow are replaced by "_".
    """
    shown = without_secrets(url).partition("://")[2].rstrip("/")
    name = re.sub(r"[^\w.-]", "_", unquote(shown.rpartition("/")[2]))
    return name if name.strip("._") else "store"


def join_url(url: str, path: str) -> str:
    """Return the URL of what lies below a folder; a query of the folder stays at the end."""
    address, rest = _split_query(url)
    return f"{address.rstrip('/')}/{path}{rest}"


def parent_url(url: str) -> str:
    """Return the URL of the folder of a file; a query of the file stays at the end."""
    address, rest = _split_query(url)
    return address.rstrip("/").rpartition("/")[0] + rest


def _split_query(url: str) -> tuple[str, str]:
    """Return a URL up to its query or fragment, and these."""
    address = re.split(r"[?#]", url, maxsplit=1)[0]
    return address, url[len(address) :]


def has_login(url: str) -> bool:
    """Return whether a URL has a user name or password."""
    scheme, _, rest = url.partition("://")
    return _without_login(scheme, rest) != rest


def has_query(url: str) -> bool:
    """Return whether a URL has a query or fragment, such as a token."""
    parts = urlsplit(url)
    return bool(parts.query or parts.fragment)


def _shown(scheme: str, rest: str) -> str:
    return re.split(r"[?#]", _without_login(scheme, rest), maxsplit=1)[0]


def _without_login(scheme: str, rest: str) -> str:
    """Return what follows :// without `user:password@`.

    Passwords should have no slash in a URL, but secret keys of S3 often do.
    """
    host = rest.partition("/")[0]
    if "@" in host:
        return host.rpartition("@")[2] + rest[len(host) :]
    has_port = scheme.lower() in _WEB and re.search(r":\d*$", host)
    if ":" in host and not has_port and "@" in rest:
        return rest.rpartition("@")[2]
    return rest
