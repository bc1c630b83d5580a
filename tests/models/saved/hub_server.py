"""A server on this machine that answers huggingface_hub as the hub does, and serves raw files.

It knows what our code needs: files by commit, branch and tag, gated and private repositories, and
uploads with Git LFS. `HubServer.requests` lists what was asked.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Content = bytes | Path
LFS_ENDINGS = (".safetensors", ".parquet", ".bin")
CHUNK = 2**20
# Some of the licenses that the hub accepts in the header of a README.
LICENSES = ("apache-2.0", "cc-by-4.0", "cc-by-nc-nd-4.0", "mit", "other")


@dataclass
class Repository:
    """Files of each commit, and the commit of each branch and tag."""

    is_private: bool = False
    is_gated: bool = False
    commits: dict[str, dict[str, Content]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def find_commit(self, revision: str) -> str | None:
        commit = self.names.get(revision, revision)
        return commit if commit in self.commits else None


class HubServer(ThreadingHTTPServer):
    """The repositories, raw files and requests of a server on a free port."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.raw: dict[str, Content] = {}  # by path, below /raw/
        self.cut: dict[str, int] = {}  # path: number of bytes after which the connection breaks
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []  # method and path
        self.status: int | None = None  # answer everything with this status

    def commit(self, repo_id: str, files: Mapping[str, Content], branch: str = "main") -> str:
        """Add files to a branch of a repository, which is made if it is new; return the commit."""
        repository = self.repositories.setdefault(repo_id, Repository())
        parent = repository.names.get(branch, "")
        about = f"{repo_id} {branch} {parent} {len(repository.commits)} {sorted(files)}"
        commit = hashlib.sha1(about.encode()).hexdigest()
        repository.commits[commit] = {**repository.commits.get(parent, {}), **files}
        repository.names[branch] = commit
        return commit

    def commit_folder(self, repo_id: str, folder: Path) -> str:
        """Add the files of a folder to the main branch."""
        return self.commit(repo_id, {file.name: file.read_bytes() for file in folder.iterdir()})


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Start a server, and stop it at the end."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _is_lfs(name: str) -> bool:
    return name.endswith(LFS_ENDINGS)


def _etag(name: str, content: Content) -> str:
    if isinstance(content, Path):
        return hashlib.sha256(str(content).encode()).hexdigest()  # as good as that of the content
    if _is_lfs(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def do_POST(self) -> None:
        path, body = self._start()
        if self.server.status:
            return self._refuse(self.server.status)
        if path == "/api/validate-yaml":
            return self._validate_header(json.loads(body)["content"])
        if not self.headers.get("Authorization"):
            return self._refuse(401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            return self._preupload(json.loads(body))
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            return self._lfs_batch(json.loads(body))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(match[1], body)
        return self._refuse(404)

    def do_PUT(self) -> None:
        path, body = self._start()
        oid = path.removeprefix("/lfs/")
        if hashlib.sha256(body).hexdigest() != oid:
            return self._refuse(400)
        self.server.blobs[oid] = body
        return self._answer({})

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _start(self) -> tuple[str, bytes]:
        path = urlsplit(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        return path, self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _get(self) -> None:
        path, _ = self._start()
        if self.server.status:
            return self._refuse(self.server.status)
        if path.startswith("/raw/"):
            content = self.server.raw.get(path.removeprefix("/raw/"))
            return self._refuse(404) if content is None else self._send(path, content, {})
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], unquote(match[2]), match[3])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self._describe(match[1], unquote(match[2] or "main"))
        return self._refuse(404)

    def _find(self, repo_id: str) -> Repository | None:
        """Return a repository that the client may see."""
        repository = self.server.repositories.get(repo_id)
        if repository is None or (repository.is_private and not self.headers.get("Authorization")):
            self._refuse(401, "RepoNotFound")
            return None
        return repository

    def _resolve(self, repo_id: str, revision: str, name: str) -> None:
        repository = self._find(repo_id)
        if repository is None:
            return None
        if repository.is_gated:
            return self._refuse(403, "GatedRepo")
        commit = repository.find_commit(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        if name not in repository.commits[commit]:
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        content = repository.commits[commit][name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(name, content)}"'}
        return self._send(urlsplit(self.path).path, content, headers)

    def _describe(self, repo_id: str, revision: str) -> None:
        repository = self._find(repo_id)
        if repository is None:
            return None
        commit = repository.find_commit(revision)
        if commit is None and revision != "main":
            return self._refuse(404, "RevisionNotFound")
        files = repository.commits.get(commit, {})
        return self._answer(
            {
                "id": repo_id,
                "sha": commit,
                "private": repository.is_private,
                "siblings": [{"rfilename": name} for name in files],
            }
        )

    def _create(self, request: dict) -> None:
        repo_id = f"{request['organization']}/{request['name']}"
        if repo_id in self.server.repositories:
            return self._refuse(409)
        is_private = bool(request.get("private")) or request.get("visibility") == "private"
        self.server.repositories[repo_id] = Repository(is_private)
        return self._answer({"url": f"{self.server.url}/{repo_id}"})

    def _preupload(self, request: dict) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if _is_lfs(file["path"]) else "regular",
                "shouldIgnore": False,
            }
            for file in request["files"]
        ]
        self._answer({"files": files})

    def _lfs_batch(self, request: dict) -> None:
        objects = []
        for part in request["objects"]:
            href = f"{self.server.url}/lfs/{part['oid']}"
            objects.append({**part, "actions": {"upload": {"href": href}}})
        self._answer({"transfer": "basic", "objects": objects})

    def _commit(self, repo_id: str, body: bytes) -> None:
        files: dict[str, Content] = {}
        for line in body.splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
        commit = self.server.commit(repo_id, files)
        url = f"{self.server.url}/{repo_id}/commit/{commit}"
        self._answer({"success": True, "commitOid": commit, "commitUrl": url})

    def _validate_header(self, readme: str) -> None:
        """Refuse a README whose license is none that the hub knows."""
        match = re.match(r"---\n.*?^license: (\S.*?)$.*?^---$", readme, re.DOTALL | re.MULTILINE)
        if match and match[1] in LICENSES:
            return self._answer({"errors": [], "warnings": []})
        errors = [{"message": f'"license" must be one of {list(LICENSES)}'}]
        return self._answer({"errors": errors, "warnings": []}, 400)

    def _send(self, path: str, content: Content, headers: Mapping[str, str]) -> None:
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start = int(match[1])
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = self.server.cut.get(path, size)
        if isinstance(content, bytes):
            self.wfile.write(content[start:end])
        else:
            with content.open("rb") as file:
                file.seek(start)
                while part := file.read(min(CHUNK, end - file.tell())):
                    self.wfile.write(part)
        self.close_connection = end < size

    def _answer(self, value: dict, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str = "", headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in {"X-Error-Code": code, **headers}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
