"""An S3 server on loopback that can be told to lack something."""

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

REFUSED = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>%s</Message></Error>"


class Weakness:
    """A WSGI application around another: drops headers, refuses requests, or keeps silent."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application
        self.get_well()

    def get_well(self) -> None:
        """Nothing is lacking."""
        self.dropped: set[str] = set()
        self.suffix_ranges = True
        self.refuses: Callable[[dict], bool] = lambda environment: False
        self.refusal = "501 Not Implemented", REFUSED % (b"NotImplemented", b"A header you provided is not implemented")
        self.answers = threading.Event()
        self.answers.set()
        self.stale_listing = False
        self.keeps_first = False
        self.written: set[str] = set()

    def __call__(self, environment: dict, start_response: Callable) -> Iterable[bytes]:
        self.answers.wait(60)
        for name in self.dropped:
            environment.pop(name, None)
        if not self.suffix_ranges and environment.get("HTTP_RANGE", "").startswith("bytes=-"):
            del environment["HTTP_RANGE"]
        if self.refuses(environment):
            status, body = self.refusal
            start_response(status, [("Content-Type", "application/xml")])
            return [body]
        if self.keeps_first and environment["REQUEST_METHOD"] == "PUT":
            if environment["PATH_INFO"] in self.written:
                environment["wsgi.input"].read(int(environment["CONTENT_LENGTH"]))
                start_response("200 OK", [("ETag", '"0"')])
                return [b""]
            self.written.add(environment["PATH_INFO"])
        if self.stale_listing and "list-type" in environment["QUERY_STRING"]:
            environment["QUERY_STRING"] = environment["QUERY_STRING"].replace("prefix=", "prefix=before-")
        return self.application(environment, start_response)


@contextmanager
def weak_server() -> Generator[tuple[str, Weakness]]:
    """The server's address and what it lacks."""
    weakness = Weakness(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, weakness, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", weakness
    finally:
        server.shutdown()
        thread.join()
