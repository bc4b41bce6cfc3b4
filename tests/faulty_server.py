"""An HTTP server on loopback that keeps a script of faults per path and a log of what it was asked and sent."""

import gzip
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from infra.remote import TransferPolicy

HASTY = TransferPolicy(
    attempts=4, first_wait_s=0.01, longest_wait_s=0.02, longest_retry_after_s=2, connect_timeout_s=5, read_timeout_s=10
)
IMPATIENT = HASTY.replace(read_timeout_s=0.4)


@dataclass
class File:
    """What lies at a path; no etag and no date = the server gives no validator."""

    data: bytes
    etag: str = '"v1"'
    modified: float | None = None
    content_type: str = "application/octet-stream"
    ranges: bool = True
    redirect: str = ""
    token: str = ""


@dataclass
class Fault:
    """What goes wrong with one answer; `keep` bytes of the body are sent before it does."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep: int | None = None
    stall_s: float = 0
    length: int | None = None
    chunked: bool = False
    no_length: bool = False
    ignore_range: bool = False
    ignore_if_range: bool = False
    shift: int = 0
    compress: bool = False
    extra: bytes = b""
    before: Callable[[], object] = lambda: None
    gate: threading.Event | None = None


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    status: int
    sent: int

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


class FaultyServer:
    """`files` by path; `faults[path]` are used up one a request; `always[path]` never is."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.log: list[Asked] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"world": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None  # clients that go away are what is tested
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def prepare(self, fault: Fault) -> None:
        """Run what happens before an answer; its client waits meanwhile, so these are counted as at once."""
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            fault.before()
        finally:
            with self.lock:
                self.at_once -= 1

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: FaultyServer

    def log_message(self, *args):
        pass

    def do_GET(self):
        world, path = self.world, urlsplit(self.path).path
        with world.lock:
            queue = world.faults[path]
            fault = queue.pop(0) if queue else world.always.get(path, Fault())
        asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, 0, 0)
        world.log.append(asked)
        try:
            world.prepare(fault)
            self._answer(path, fault, asked)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, path, fault, asked):
        file = self.world.files.get(path)
        if fault.status or file is None:
            self._send(asked, fault.status or 404, fault.headers, fault.body, fault)
        elif file.token and asked.headers.get("authorization") != f"Bearer {file.token}":
            self._send(asked, 401, {}, b"", fault)
        elif file.redirect:
            self._send(asked, 302, {"Location": file.redirect}, b"", fault)
        else:
            status, headers, body = _part(file, asked, fault)
            self._send(asked, status, headers | fault.headers, body, fault)

    def _send(self, asked, status, headers, body, fault):
        asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif fault.no_length:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body) if fault.length is None else fault.length))
        self.end_headers()
        body += fault.extra
        kept = body if fault.keep is None else body[: fault.keep]
        self._write(kept, asked, fault)
        if fault.gate:
            fault.gate.wait(20)
        if fault.stall_s:
            time.sleep(fault.stall_s)
        if fault.chunked and len(kept) == len(body):
            self.wfile.write(b"0\r\n\r\n")
        elif len(kept) < len(body) or fault.extra or fault.no_length or fault.length is not None:
            self.close_connection = True

    def _write(self, body, asked, fault):
        for start in range(0, len(body), 16384):
            piece = body[start : start + 16384]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if fault.chunked else piece)
            asked.sent += len(piece)


def _part(file, asked, fault):
    data = gzip.compress(file.data) if fault.compress else file.data
    headers = {"Content-Type": file.content_type}
    if file.etag:
        headers["ETag"] = file.etag
    if file.modified is not None:
        headers["Last-Modified"] = formatdate(file.modified, usegmt=True)
    if fault.compress:
        headers["Content-Encoding"] = "gzip"
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.range)
    condition = asked.headers.get("if-range")
    current = condition in (None, headers.get("ETag"), headers.get("Last-Modified")) or fault.ignore_if_range
    if not found or not file.ranges or fault.ignore_range or not current:
        return 200, headers, data
    start = int(found[1]) + fault.shift
    if start >= len(data):
        return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
    end = min(int(found[2] or len(data)), len(data) - 1)
    return 206, headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"}, data[start : end + 1]


class FaultyProxy(FaultyServer):
    """Passes requests on to another server, but for those that its script answers itself; `rule` chooses them."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = urlsplit(target).netloc
        self.script: list[Fault] = []
        self.methods = ("GET",)
        handler = type("Handler", (_ProxyHandler,), {"world": self})
        self._server.RequestHandlerClass = handler


class _ProxyHandler(_Handler):
    def _pass(self):
        world = self.world
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(f"{self.command} {self.path}", {k.lower(): v for k, v in self.headers.items()}, 0, 0)
        world.log.append(asked)
        with world.lock:
            fault = world.script.pop(0) if world.script and self.command in world.methods else Fault()
        try:
            world.prepare(fault)
            if fault.status:
                self._send(asked, fault.status, fault.headers, fault.body, fault)
            else:
                self._forward(asked, body, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _forward(self, asked, body, fault):
        connection = HTTPConnection(self.world.target, timeout=20)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "expect")}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        kept = {k: v for k, v in answer.getheaders() if k.lower() in ("etag", "last-modified", "content-type")}
        kept |= {k: v for k, v in answer.getheaders() if k.lower().startswith(("x-amz", "content-range"))}
        if self.command == "HEAD":
            fault = Fault(length=int(answer.getheader("Content-Length") or 0))
        self._send(asked, answer.status, kept, data, fault)
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass


def slow_down(retry_after: str = "0") -> Fault:
    """S3's answer to too many requests."""
    body = (
        b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    )
    return Fault(status=503, body=body, headers={"Content-Type": "application/xml", "Retry-After": retry_after})
