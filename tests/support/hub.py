"""A small Hugging Face Hub on 127.0.0.1, as huggingface_hub's client sees the real one.

It answers what the client asks when it downloads: a repository's information, its tree, and its files under
`resolve`. Weights are "large files": the hub answers for them with a redirect to a second server, as it does to its
content network. It takes uploads as well, by Git LFS' protocol: that of Xet, which the real one prefers, is not built.
Point a process at it with HF_ENDPOINT (read once, when huggingface_hub is imported).
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import huggingface_hub.constants
import huggingface_hub.hf_api
import pytest

from tests.support import Asked, LocalServer, Reply

LARGE = (".safetensors", ".bin", ".ckpt", ".pt", ".png", ".jpg")
"""What the hub keeps out of git by default."""

WHEN = "2026-01-02T03:04:05.000Z"


@dataclass(frozen=True)
class _File:
    """One file of one commit."""

    path: str
    body: bytes

    @property
    def oid(self) -> str:
        """Git's name of the blob: for a large file, of its pointer."""
        return _git_blob(self.pointer if self.large else self.body)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    @property
    def large(self) -> bool:
        return self.path.endswith(LARGE)

    @property
    def pointer(self) -> bytes:
        """What git itself stores in place of a large file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.body)}\n".encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.oid


@dataclass
class _Repo:
    """One repository: its commits by sha, and where its branches point."""

    gated: bool = False
    commits: dict[str, dict[str, _File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, or a commit's own sha, means."""
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else None


class LocalHub(LocalServer):
    """The hub: `add` folders to it, point HF_ENDPOINT at its `url`, and set its knobs to misbehave."""

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        """A part of a path → the status answered for every path that has it."""
        self.cut_after: int | None = None
        """Break off each file's body after so many bytes."""
        self.cut_by: Literal["close", "reset"] = "reset"
        """How: huggingface_hub resumes after an orderly close, and gives up at a reset."""
        self.cuts_left: int | None = None
        """How many more times; None is for ever."""
        self.tokens: frozenset[str] | None = None
        """Which tokens are valid; None takes any. A request with another is refused, for public files as well."""
        self.refusal = "Invalid credentials in Authorization header"
        """How it is refused; of a token that ran out, the hub says other words."""
        self.accepted = True
        """Whether those who log in have accepted the terms of gated repositories."""
        self.garbled = 0
        """How many more bodies of large files come with other bytes than promised."""
        self.writers: frozenset[str] = frozenset()
        """Which tokens may write; a request to write without any is 401, with another 403."""
        self._uploaded: dict[str, bytes] = {}
        self._repos: dict[str, _Repo] = {}
        self._network = _ContentNetwork(self)
        super().__init__()

    def add(self, repo_id: str, folder: Path, revision: str = "main", *, gated: bool = False) -> str:
        """Publish what `folder` holds now as the newest commit of a branch; returns the commit's sha."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = [_File(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths]
        sha = _sha1(f"{repo_id}\n" + "".join(f"{file.oid} {file.path}\n" for file in files))
        repo = self._repos.setdefault(repo_id, _Repo())
        repo.gated = gated
        repo.commits[sha] = {file.path: file for file in files}
        repo.branches[revision] = sha
        return sha

    def commit(self, repo_id: str, revision: str = "main") -> str:
        """The sha a branch points at."""
        return self._repos[repo_id].branches[revision]

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs in its environment to take this for the hub, with its cache in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def start(self) -> None:
        """Listen, the content network too."""
        super().start()
        if self._network.offline:
            self._network.start()

    def close(self) -> None:
        """Refuse connections, to the content network too."""
        super().close()
        self._network.close()

    def answer(self, asked: Asked) -> Reply:
        """Answer the hub's own paths."""
        return self._refused(asked) or self._scripted(asked) or self._route(asked)

    def _refused(self, asked: Asked) -> Reply | None:
        sent = asked.headers.get("authorization", "").removeprefix("Bearer ")
        return _error(401, "", self.refusal) if sent and self.tokens is not None and sent not in self.tokens else None

    def _scripted(self, asked: Asked) -> Reply | None:
        statuses = (status for part, status in self.status.items() if part in asked.path)
        status = next(statuses, None)
        if status is None:
            return None
        missing = "EntryNotFound" if "/resolve/" in asked.path else "RepoNotFound"
        return _error(status, {401: "RepoNotFound", 404: missing}.get(status, ""), f"Scripted {status}")

    def _route(self, asked: Asked) -> Reply:
        if asked.method in ("POST", "PUT"):
            return self._write(asked)
        match asked.parts:
            case ("api", "models", owner, name, *rest):
                return self._api(asked, f"{owner}/{name}", rest)
            case (owner, name, "resolve", revision, *path):
                return self._file(asked, f"{owner}/{name}", revision, "/".join(path))
        return _error(404, "", "Sorry, we can't find the page you are looking for.")

    def _api(self, asked: Asked, repo_id: str, rest: list[str]) -> Reply:
        revision = rest[1] if len(rest) > 1 else "main"
        found = self._commit(asked, repo_id, revision)
        if isinstance(found, Reply):
            return found
        match rest:
            case [] | ["revision", _]:
                return _json(self._information(repo_id, found, blobs=asked.query.get("blobs", "").lower() == "true"))
            case ["tree", _, *path]:
                return self._tree(repo_id, found, "/".join(path), asked.query.get("recursive", "").lower() == "true")
        return _error(404, "", "Not found")

    def _write(self, asked: Asked) -> Reply:
        """Make a repository, and take files: what is large by Git LFS, then a commit that names it."""
        if asked.parts[0] == "lfs-objects":  # Signed addresses, that need no token.
            self._uploaded[asked.parts[1]] = asked.body
            return Reply(200)
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.writers:
            return _error(403 if token else 401, "", "Forbidden" if token else "Invalid username or password.")
        match asked.parts:
            case ("api", "repos", "create"):
                told = json.loads(asked.body)
                repo_id = f"{told['organization']}/{told['name']}"
                self._repos.setdefault(repo_id, _Repo())
                return _json({"url": f"{self.url}/{repo_id}", "name": repo_id})
            case ("api", "validate-yaml"):
                return _json({"warnings": [], "errors": []})
            case ("api", "models", _, _, "preupload", _):
                paths = [each["path"] for each in json.loads(asked.body)["files"]]
                modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in paths}
                return _json({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
            case (_, _, "info", "lfs", "objects", "batch"):
                objects = json.loads(asked.body)["objects"]
                actions = {o["oid"]: {"upload": {"href": f"{self.url}/lfs-objects/{o['oid']}"}} for o in objects}
                return _json({"transfer": "basic", "objects": [{**o, "actions": actions[o["oid"]]} for o in objects]})
            case ("api", "models", owner, name, "commit", revision):
                return self._committed(f"{owner}/{name}", revision, asked.body)
        return _error(404, "", "Not found")

    def _committed(self, repo_id: str, revision: str, body: bytes) -> Reply:
        """A commit as the client sends it, a line each for its message and its files; files of before stay."""
        repo = self._repos[repo_id]
        files = dict(repo.commits[repo.branches[revision]]) if revision in repo.branches else {}
        for line in map(json.loads, body.splitlines()):
            told = line["value"]
            if line["key"] == "file":
                files[told["path"]] = _File(told["path"], base64.b64decode(told["content"]))
            elif line["key"] == "lfsFile":
                files[told["path"]] = _File(told["path"], self._uploaded[told["oid"]])
        sha = _sha1(f"{repo_id}\n" + "".join(f"{file.oid} {file.path}\n" for file in files.values()))
        repo.commits[sha], repo.branches[revision] = files, sha
        return _json({"commitUrl": f"{self.url}/{repo_id}/commit/{sha}", "commitOid": sha, "success": True})

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """What a branch holds."""
        return {path: file.body for path, file in self._repos[repo_id].commits[self.commit(repo_id, revision)].items()}

    def _commit(self, asked: Asked, repo_id: str, revision: str) -> str | Reply:
        """The commit asked for, or the hub's way of saying that there is none."""
        repo = self._repos.get(repo_id)
        if repo is None:
            # Without a token the hub will not tell a missing repository from a private one. The code is needed here:
            # the client takes a bare 401 for a missing repository over https only.
            status = 404 if "authorization" in asked.headers else 401
            return _error(status, "RepoNotFound", "Invalid username or password." if status == 401 else "Not found")
        sha = repo.resolve(revision)
        return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}") if sha is None else sha

    def _information(self, repo_id: str, sha: str, *, blobs: bool) -> dict[str, Any]:
        repo = self._repos[repo_id]
        return {
            "_id": sha[:24],
            "id": repo_id,
            "modelId": repo_id,
            "author": repo_id.split("/")[0],
            "sha": sha,
            "private": False,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "library_name": "diffusers",
            "pipeline_tag": "text-to-image",
            "tags": ["diffusers", "safetensors", "text-to-image"],
            "createdAt": WHEN,
            "lastModified": WHEN,
            "siblings": [_sibling(file, blobs=blobs) for file in repo.commits[sha].values()],
        }

    def _tree(self, repo_id: str, sha: str, folder: str, recursive: bool) -> Reply:
        entries = _entries(self._repos[repo_id].commits[sha], folder, recursive)
        if folder and not entries:
            return _error(404, "EntryNotFound", f'{folder} does not exist on "{sha}"', {"X-Repo-Commit": sha})
        return _json(entries)

    def _file(self, asked: Asked, repo_id: str, revision: str, path: str) -> Reply:
        found = self._commit(asked, repo_id, revision)
        if isinstance(found, Reply):
            return found
        repo = self._repos[repo_id]
        known = "authorization" in asked.headers
        if repo.gated and not (self.tokens and known and self.accepted):
            # Its information and tree are public; its files are not.
            return _error(403 if known else 401, "GatedRepo", f"Access to model {repo_id} is restricted.")
        file = repo.commits[found].get(path)
        if file is None:
            return _error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": found})
        return self._redirect(file, found) if file.large else self._serve(asked, file, {"X-Repo-Commit": found})

    def _redirect(self, file: _File, sha: str) -> Reply:
        """Where a large file is to be had, with what the client must know of it before it goes there."""
        headers = {
            "Location": f"{self._network.url}/{file.sha256}",
            "X-Repo-Commit": sha,
            "X-Linked-Size": str(len(file.body)),
            "X-Linked-ETag": f'"{file.etag}"',
        }
        return Reply(302, f"Found. Redirecting to {headers['Location']}".encode(), headers)

    def _large(self, sha256: str) -> _File | None:
        files = (file for repo in self._repos.values() for files in repo.commits.values() for file in files.values())
        return next((file for file in files if file.large and file.sha256 == sha256), None)

    def _serve(self, asked: Asked, file: _File, extra: Mapping[str, str]) -> Reply:
        """The file's bytes, from where the Range header says."""
        headers = {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        headers |= extra
        if "range" not in asked.headers:
            return self._cut(asked, Reply(200, file.body, headers))
        first, last = _span(asked.headers["range"], len(file.body))
        if first >= len(file.body):
            return Reply(416, b"", headers | {"Content-Range": f"bytes */{len(file.body)}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(file.body)}"
        return self._cut(asked, Reply(206, file.body[first : last + 1], headers))

    def _cut(self, asked: Asked, reply: Reply) -> Reply:
        """Apply `cut_after` to a body that is longer, while cuts are left."""
        if asked.method == "HEAD" or self.cut_after is None or len(reply.body) <= self.cut_after:
            return reply
        with self._lock:
            if self.cuts_left == 0:
                return reply
            self.cuts_left = None if self.cuts_left is None else self.cuts_left - 1
        return Reply(reply.status, reply.body, reply.headers, self.cut_after, self.cut_by)


def take_for_the_hub(hub: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have huggingface_hub take it for the real one in this process, with its cache in `cache`."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


class _ContentNetwork(LocalServer):
    """Where large files lie, on a port (so an origin) of its own; its requests are logged with the hub's."""

    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        super().__init__()
        self.requests = []

    def answer(self, asked: Asked) -> Reply:
        with self._hub._lock:
            self._hub.requests.append((asked.method, asked.path))
        file = self._hub._large(asked.path.strip("/"))
        if file is None:
            return Reply(403, b"AccessDenied")
        reply = self._hub._serve(asked, file, {})
        return self._garbled(reply) if asked.method == "GET" else reply

    def _garbled(self, reply: Reply) -> Reply:
        """The same with its last byte changed, while that is wanted."""
        with self._hub._lock:
            if not self._hub.garbled:
                return reply
            self._hub.garbled -= 1
        return replace(reply, body=reply.body[:-1] + bytes([reply.body[-1] ^ 1]))


def _entries(files: Mapping[str, _File], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The tree's rows: folders and files below `folder`, or directly in it."""
    rows: dict[str, dict[str, Any]] = {}
    top = PurePosixPath(folder)
    for file in files.values():
        path = PurePosixPath(file.path)
        for place in (*reversed(path.parents), path):
            below = place != top and place.is_relative_to(top)
            if below and (recursive or place.parent == top):
                rows[str(place)] = _file_row(file) if place == path else _folder_row(str(place))
    return list(rows.values())


def _folder_row(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": _sha1(path), "size": 0, "path": path}


def _file_row(file: _File) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": file.oid, "size": len(file.body), "path": file.path}
    if file.large:
        row["lfs"] = {"oid": file.sha256, "size": len(file.body), "pointerSize": len(file.pointer)}
    return row


def _sibling(file: _File, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": file.path}
    row: dict[str, Any] = {"rfilename": file.path, "size": len(file.body), "blobId": file.oid}
    if file.large:
        row["lfs"] = {"sha256": file.sha256, "size": len(file.body), "pointerSize": len(file.pointer)}
    return row


def _span(header: str, size: int) -> tuple[int, int]:
    """First and last byte of `bytes=first-` or `bytes=first-last`."""
    first, _, last = header.removeprefix("bytes=").partition("-")
    return int(first), min(int(last), size - 1) if last else size - 1


def _json(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})


def _error(status: int, code: str, message: str, extra: Mapping[str, str] | None = None) -> Reply:
    headers = {"Content-Type": "application/json; charset=utf-8", "X-Error-Message": message, **(extra or {})}
    if code:
        headers["X-Error-Code"] = code
    return Reply(status, json.dumps({"error": message}).encode(), headers)


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _git_blob(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
