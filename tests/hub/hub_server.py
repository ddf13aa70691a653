"""A local server that speaks the hub's API as the real client calls it, with the faults that tests ask for."""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LFS = 2_000  # bytes; larger files are LFS objects, served by the "content network" (another host name)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """Commits by hash, and what branches point to."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gated: bool = False
    private: bool = False
    about: dict[str, object] = field(default_factory=dict)  # what a search answers: tags, downloads, ...


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None
    sent: int = 0


@dataclass
class Hub:
    """Repositories and faults. ``cut`` are bytes after which the next bodies of a file end early."""

    repos: dict[str, Repo] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    xet: dict[str, str] = field(default_factory=dict)  # file name -> xet hash
    xet_store: str = ""
    hold: dict[str, tuple[int, threading.Event]] = field(default_factory=dict)
    trickle: set[str] = field(default_factory=set)  # files that come at 2.5 MB/s
    status: dict[str, list[int]] = field(default_factory=dict)  # path part -> answers to give first
    requests: list[Request] = field(default_factory=list)

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        for _, event in self.hold.values():
            event.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, name: str, files: dict[str, bytes], *, branch: str = "main", **about: object) -> str:
        """Commits ``files`` to ``name`` and returns the commit; ``about`` is what a search answers."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repo = self.repos.setdefault(name, Repo({}, {}))
        repo.commits[commit] = files
        repo.refs[branch] = commit
        repo.about.update(about)
        return commit

    def bodies(self, part: str = "/cdn/") -> list[Request]:
        return [r for r in self.requests if r.method == "GET" and part in r.path]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._serve()

    def do_GET(self):
        self._serve()

    def _serve(self):
        path = unquote(urlsplit(self.path).path)
        self.request_log = Request(
            self.command, path, self.headers.get("Range"), self.headers.get("Authorization")
        )
        self.hub.requests.append(self.request_log)
        for part, codes in self.hub.status.items():
            if part in path and codes:
                return self._reply(codes.pop(0), b"{}")
        try:
            if path.startswith("/cdn/"):
                return self._content(path.split("/", 4)[4], path.split("/")[2], None)
            if path == "/api/models":
                return self._search(parse_qs(urlsplit(self.path).query))
            if path.startswith("/api/models/"):
                return self._api(path.removeprefix("/api/models/").split("/"))
            if "/resolve/" not in path:
                return self._reply(404, b"")  # the client asks for lists of its own
            owner, name, _, rest = path.lstrip("/").split("/", 3)
            return self._resolve(f"{owner}/{name}", rest)
        except (BrokenPipeError, ConnectionResetError):
            return None

    def _search(self, asked):
        """The public repositories whose names hold the text, with all tags asked for, the most downloaded first."""
        text, author = asked.get("search", [""])[0].lower(), asked.get("author", [""])[0]
        found = [
            {"id": name, "gated": "manual" if repo.gated else False, **repo.about}
            for name, repo in self.hub.repos.items()
            if text in name.lower() and name.startswith(author) and not repo.private
            if set(asked.get("filter", [])) <= set(repo.about.get("tags", []))
        ]
        found.sort(key=lambda entry: -entry.get("downloads", 0))
        body = json.dumps(found[: int(asked.get("limit", ["1000"])[0])])
        return self._reply(200, body.encode(), {"Content-Type": "application/json"})

    def _api(self, parts):
        repo, kind = "/".join(parts[:2]), parts[2] if len(parts) > 2 else ""
        found = self._repo(repo)
        if found is None:
            return None
        if kind == "xet-read-token":
            body = {"accessToken": "t", "exp": 4_000_000_000, "casUrl": self.hub.xet_store}
            headers = {
                "X-Xet-Cas-Url": self.hub.xet_store,
                "X-Xet-Access-Token": "t",
                "X-Xet-Token-Expiration": "4000000000",
            }
            return self._reply(200, json.dumps(body).encode(), headers)
        commit = self._commit(found, "/".join(parts[3:]) or "main")
        if commit is None:
            return None
        if kind == "tree":
            files = found.commits[commit]
            return self._reply(200, json.dumps([self._entry(p, c) for p, c in files.items()]).encode())
        return self._reply(200, json.dumps({"id": repo, "sha": commit, "gated": found.gated}).encode())

    def _entry(self, path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if len(content) > LFS:
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
        if path in self.hub.xet:
            entry["xetHash"] = self.hub.xet[path]
        return entry

    def _repo(self, repo):
        found = self.hub.repos.get(repo)
        token = self.headers.get("Authorization")
        if found is None or (found.private and token is None):
            self._reply(401 if token is None else 404, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def _commit(self, repo, revision):
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self._reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit

    def _resolve(self, name, rest):
        repo = self._repo(name)
        if repo is None:
            return None
        revision, _, path = rest.partition("/")
        commit = self._commit(repo, revision)
        if commit is None:
            return None
        if repo.gated and self.headers.get("Authorization") != "Bearer hf_good":
            return self._reply(
                403 if self.headers.get("Authorization") else 401, b"", {"X-Error-Code": "GatedRepo"}
            )
        content = repo.commits[commit].get(path)
        if content is None:
            return self._reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        if len(content) <= LFS:
            return self._content(path, git_hash(content), commit, content)
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{self.hub.etags.get(path, sha256(content))}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"http://localhost:{self.hub.port}/cdn/{sha256(content)}/{name.replace('/', '--')}/{path}",
        }
        if path in self.hub.xet:
            headers["X-Xet-Hash"] = self.hub.xet[path]
            headers["X-Xet-Refresh-Route"] = f"{self.hub.url}/api/models/{name}/xet-read-token/{commit}"
        return self._reply(302, b"", headers)

    def _content(self, path, digest, commit, content=None):
        if content is None:
            files = (f for r in self.hub.repos.values() for c in r.commits.values() for f in c.values())
            content = next(file for file in files if sha256(file) == digest)
        start = 0
        asked = self.headers.get("Range")
        if asked and self.hub.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(content) > 0:
            return self._reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if commit:
            headers["X-Repo-Commit"] = commit
        if asked and self.hub.ranges:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if path in self.hub.damaged:
            body = bytes(byte ^ 1 for byte in body)
        self.send_response(206 if asked and self.hub.ranges else 200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        return self._send(path, body)

    def _send(self, path, body):
        cuts = self.hub.cut.get(path)
        if cuts:
            body = body[: cuts.pop(0)]
            self.close_connection = True
        if path in self.hub.hold:
            count, event = self.hub.hold[path]
            self.wfile.write(body[:count])
            self.request_log.sent += count
            event.wait(20)
            body = body[count:]
        if path in self.hub.trickle:
            for at in range(0, len(body), 50_000):
                time.sleep(0.02)
                self.wfile.write(body[at : at + 50_000])
        else:
            self.wfile.write(body)
        self.request_log.sent += len(body)
        return

    def _reply(self, code, body, headers=None):
        self.send_response(code)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
