"""A local package index: simple pages in HTML or JSON, wheels with ranges, and the faults that tests ask for."""

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def make_wheel(files):
    """A zip with these members, as a wheel is one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Index:
    """Files by name, in the style ``html`` or ``json``; ``user`` is required where it is set."""

    def __init__(self):
        self.files = {}
        self.style = "html"
        self.hashes = {}
        self.cut = []
        self.user = None
        self.requests = []

    def start(self):
        handler = type("Handler", (_Handler,), {"index": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    @property
    def host(self):
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self):
        return f"http://{self.host}/simple"

    def digest(self, name):
        return self.hashes.get(name, hashlib.sha256(self.files[name]).hexdigest())


class _Handler(BaseHTTPRequestHandler):
    index: Index
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        index = self.index
        index.requests.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if index.user is not None and self.headers.get("Authorization") != index.user:
            self._reply(401, b"")
        elif self.path == "/simple/tiny-model/":
            self._page()
        elif self.path.startswith("/files/") and self.path.removeprefix("/files/") in index.files:
            self._file(index.files[self.path.removeprefix("/files/")])
        else:
            self._reply(404, b"")

    def _page(self):
        index = self.index
        if index.style == "json":
            files = [
                {
                    "filename": name,
                    "url": f"../../files/{name}",
                    "hashes": {"sha256": index.digest(name)},
                    "size": len(content),
                }
                for name, content in index.files.items()
            ]
            body = json.dumps({"meta": {"api-version": "1.1"}, "name": "tiny-model", "files": files})
            return self._reply(200, body.encode(), {"Content-Type": "application/vnd.pypi.simple.v1+json"})
        links = "".join(
            f'<a href="/files/{name}#sha256={index.digest(name)}">{name}</a><br>' for name in index.files
        )
        return self._reply(200, f"<!DOCTYPE html><html><body>{links}</body></html>".encode())

    def _file(self, content):
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked and start >= len(content):
            return self._reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        body = content[start:]
        sent = body
        if self.index.cut:
            sent = body[: self.index.cut.pop(0)]
            self.close_connection = True
        headers = {"Content-Length": str(len(body))}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if asked else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(sent)
        return None

    def _reply(self, code, body, headers=None):
        self.send_response(code)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
