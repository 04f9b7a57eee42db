"""A small server that answers huggingface_hub as the Hub does: repositories made, files sent by commit and LFS, and fetched."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_of_the_owner"
REGULAR_BYTES = 10 * 2**20
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(preupload|commit|tree|revision)/([^/?]+))?$")
_BATCH = re.compile(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)$")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b""})
    commits: list[list[str]] = field(default_factory=list)  # the operations of each

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr((self.commits, sorted(self.files))).encode()).hexdigest()


def is_lfs(sample: bytes, size: int) -> bool:
    """The Hub keeps what is large or no text outside of git."""
    return size > REGULAR_BYTES or b"\0" in sample


def blob_id(data: bytes) -> str:
    """What the Hub knows a file by: git's id, or of LFS files its SHA-256."""
    if is_lfs(data[:512], len(data)):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubServer:
    """`owners` may be written to; `refuse` has by a part of the path (status, message) that are answered instead, and
    `silent` parts of paths that get no answer."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}  # by "models/me/name" or "datasets/me/name"
        self.objects: dict[str, bytes] = {}
        self.owners = {"me"}
        self.refuse: dict[str, tuple[int, str]] = {}
        self.silent: set[str] = set()
        self.requests: list[str] = []
        self.stop = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                path = self.path.partition("?")[0]
                hub.requests.append(f"{self.command} {path}")
                if any(part in self.path for part in hub.silent):
                    hub.stop.wait(60)
                    return
                status, value = hub.reply(self.command, path, body, self.headers)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if isinstance(value, dict) and "error" in value:
                    self.send_header("X-Error-Message", value["error"])
                    if value["error"] == "Repository not found":
                        self.send_header("X-Error-Code", "RepoNotFound")
                if status == 200 and (resolved := _FILE.match(path)):
                    self.send_header("ETag", f'"{blob_id(data)}"')
                    self.send_header("X-Repo-Commit", hub.repositories[hub.key(resolved)].sha)
                self.end_headers()
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):  # whoever asked has given up
                        self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_HEAD = answer

            def log_message(self, *args: object) -> None:
                """Tests print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()

    @staticmethod
    def key(match: re.Match[str]) -> str:
        return f"{'datasets' if match[1] else 'models'}/{match[2]}"

    def reply(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, Any]:
        for part, (status, message) in self.refuse.items():
            if part in path:
                return status, {"error": message}
        if method == "PUT":  # a signed address, without a token
            self.objects[hashlib.sha256(body).hexdigest()] = body
            return 200 if path.endswith(hashlib.sha256(body).hexdigest()) else 400, {}
        known = headers.get("Authorization") == f"Bearer {TOKEN}"
        if headers.get("Authorization") and not known:
            return 401, {"error": "Invalid credentials in Authorization header"}
        if method in ("GET", "HEAD"):
            return self.read(path, known)
        if not known:
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body))
        if batch := _BATCH.match(path):
            asked = json.loads(body)
            return 200, self.lfs(asked, path) if batch[3] == "batch" else {}
        api = _API.match(path)
        repository = self.repositories.get(f"{api[1]}/{api[2]}") if api else None
        if not api or repository is None:
            return 404, {"error": "Repository not found"}
        if api[2].partition("/")[0] not in self.owners:
            return 403, {"error": "You don't have the required permissions"}
        return 200, (self.modes(repository, body) if api[3] == "preupload" else self.commit(api, repository, body))

    def read(self, path: str, known: bool) -> tuple[int, Any]:
        resolved, api = _FILE.match(path), _API.match(path)
        match = resolved or api
        key = self.key(resolved) if resolved else f"{api[1]}/{api[2]}" if api else ""
        repository = self.repositories.get(key)
        if not match or repository is None or (repository.private and not known):
            return 401 if not known else 404, {"error": "Repository not found"}
        if resolved:
            data = repository.files.get(resolved[4])
            return (404, {"error": "Entry not found"}) if data is None else (200, data)
        names = repository.files.items()
        if api and api[3] == "tree":
            return 200, [{"type": "file", "path": n, "size": len(d), "oid": blob_id(d)} for n, d in names]
        files = [{"rfilename": name, "size": len(data)} for name, data in names]
        return 200, {"id": match[2], "sha": repository.sha, "private": repository.private, "siblings": files}

    def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        kind, name = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
        if asked["organization"] not in self.owners:
            return 403, {"error": f'You don\'t have the rights to create a {kind} under the namespace "{name}"'}
        if f"{kind}s/{name}" in self.repositories:
            return 409, {"error": f"You already created this {kind} repo"}
        self.repositories[f"{kind}s/{name}"] = Repository(asked.get("visibility", "public") == "private")
        return 200, {"url": f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{name}"}

    @staticmethod
    def validate(asked: dict[str, Any]) -> tuple[int, Any]:
        front = yaml.safe_load(asked["content"].split("---")[1])
        ok = isinstance(front.get("license"), str) and isinstance(front.get("tags"), list)
        return (200, {}) if ok else (400, {"errors": [{"message": '"license" must be one of the known ones'}]})

    @staticmethod
    def modes(repository: Repository, body: bytes) -> dict[str, Any]:
        files = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if is_lfs(base64.b64decode(file["sample"]), file["size"]) else "regular"
            before = repository.files.get(file["path"])
            oid = None if before is None else blob_id(before)
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def lfs(self, asked: dict[str, Any], path: str) -> dict[str, Any]:
        verify = {"href": f"{self.url}{path.removesuffix('batch')}verify"}
        objects: list[dict[str, Any]] = []
        for item in asked["objects"]:
            actions = {"upload": {"href": f"{self.url}/storage/{item['oid']}"}, "verify": verify}
            objects.append(item | ({} if item["oid"] in self.objects else {"actions": actions}))
        return {"transfer": "basic", "objects": objects}

    def commit(self, api: re.Match[str], repository: Repository, body: bytes) -> dict[str, Any]:
        operations = []
        for line in body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                repository.files[value["path"]] = self.objects[value["oid"]]
            elif key == "deletedFile":
                del repository.files[value["path"]]
            if key != "header":
                operations.append(f"{key} {value['path']}")
        repository.commits.append(operations)
        prefix = "datasets/" if api[1] == "datasets" else ""
        url = f"{self.url}/{prefix}{api[2]}/commit/{repository.sha}"
        return {"success": True, "commitOid": repository.sha, "commitUrl": url}


@contextmanager
def serving() -> Iterator[HubServer]:
    hub = HubServer()
    try:
        yield hub
    finally:
        hub.stop.set()
        hub.server.shutdown()
        hub.server.server_close()
