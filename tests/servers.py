"""Servers of tests: real processes on this machine, which are killed and started again."""

import os
import socket
import subprocess
import sys
from pathlib import Path

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
        """Start the process with the options of `tests.server_process`, and wait until it listens."""
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

    def requests(self, method: str = "GET") -> list[str]:
        """List the paths of all requests of a method so far."""
        lines = self._requests.read_text().splitlines() if self._requests.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{method} ")]

    def forget(self) -> None:
        """Begin the list of requests anew."""
        self._requests.unlink(missing_ok=True)
