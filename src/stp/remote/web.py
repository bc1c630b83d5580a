"""Folders on web servers, which list no files."""

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from stp._extras import import_extra
from stp.remote.folder import CONNECT_SECONDS, READ_SECONDS, RemoteFile, RemoteFolder


class WebFolder(RemoteFolder):
    """A folder on a web server, which does not list its files.

    A query of the URL, such as a token, is sent with each file.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        aiohttp: Any = import_extra("aiohttp")
        from fsspec.implementations.http import HTTPFileSystem

        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=2 * CONNECT_SECONDS,
            sock_connect=CONNECT_SECONDS,
            sock_read=READ_SECONDS,
        )
        self._files = HTTPFileSystem(
            encoded=True,
            use_listings_cache=False,
            skip_instance_cache=True,
            # The size of a compressed answer would not be that of the file.
            client_kwargs={"timeout": timeout, "headers": {"Accept-Encoding": "identity"}},
        )

    def read(self, name: str) -> bytes:
        """Return the content of a file, or raise FileNotFoundError if there is none."""
        return self.try_(lambda: self._files.cat_file(self._address(name)))

    def download(self, name: str, path: Path) -> None:
        """Write a file to a local path."""
        self.try_(lambda: self._files.get_file(self._address(name), str(path)))

    def look_up(self, name: str) -> RemoteFile | None:
        """Return what the server says of a file, or None if there is none."""
        from fsspec.asyn import sync

        address = self._address(name)
        return self.try_(lambda: sync(self._files.loop, self._ask, address))

    async def _ask(self, address: str) -> RemoteFile | None:
        session = await self._files.set_session()
        url = self._files.encode_url(address)
        async with session.head(url, allow_redirects=True) as answer:
            if answer.status in (404, 410):
                return None
            if answer.status in (405, 501):  # a server that only sends files
                return RemoteFile(None, "")
            answer.raise_for_status()
            size = answer.headers.get("Content-Length")
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            return RemoteFile(None if size is None else int(size), tag)

    def _address(self, name: str) -> str:
        """Return the URL of a file; a query stays at its end."""
        parts = urlsplit(self.url)
        path = quote(parts.path, safe="/%:@!$&'()*+,;=~").rstrip("/") + "/" + quote(name)
        return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
