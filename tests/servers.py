"""Servers of tests: real processes on this machine, which are killed and started again."""

import os
import socket
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Server:
    """A web server of a folder, or an S3 server without a folder.

    Parameters
    ----------
    requests
        File in which each request is a line.
    folder
        Folder of the web server; None for S3.
    """

    def __init__(self, requests: Path, folder: Path | None = None) -> None:
        self._requests = requests
        self._folder = folder
        self._process: subprocess.Popen | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"

    def start(self, **options: object) -> "Server":
        """Start the process with options of `tests.server_process`; wait until it listens."""
        kind = ["s3", str(self.port)] if self._folder is None else ["web", str(self.port)]
        command = [sys.executable, "-m", "tests.server_process", *kind]
        if self._folder is not None:
            command.append(str(self._folder))
        texts = {name: str(value) for name, value in options.items()}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "REQUESTS": str(self._requests), **texts},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def fail_after(self, n_uploads: float) -> None:
        """Let the S3 server answer some more uploads, and refuse all others."""
        address = f"http://{self.host}/count-puts/{n_uploads}"
        urllib.request.urlopen(address, timeout=10).close()

    def requests(self, method: str = "GET") -> list[str]:
        """List the paths of all requests of a method so far."""
        lines = self._requests.read_text().splitlines() if self._requests.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{method} ")]

    def forget(self) -> None:
        """Begin the list of requests anew."""
        self._requests.unlink(missing_ok=True)


class S3:
    """A new bucket of an S3 server, which the environment of this process names.

    Parameters
    ----------
    server
        The server, which runs.
    monkeypatch
        Changes the environment for one test.
    """

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.bucket = f"bucket-{uuid.uuid4().hex[:8]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.host}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRETKEY")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        self.files.mkdir(self.bucket)

    @property
    def files(self):
        """The server as another program sees it."""
        import s3fs

        return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"

    def put(self, store: Path, name: str = "") -> str:
        """Copy a store into the bucket, in place of one of its name, and return its URL."""
        files = self.files
        place = f"{self.bucket}/{name or store.name}"
        if files.exists(place):
            files.rm(place, recursive=True)
        files.put(str(store), place, recursive=True)
        return f"s3://{place}"

    def names(self, name: str) -> set[str]:
        """List the files of a store in the bucket."""
        start = f"{self.bucket}/{name}/"
        return {place.removeprefix(start) for place in self.files.find(start)}
