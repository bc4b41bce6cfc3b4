"""An S3 server on loopback that counts what is asked of it."""

import logging
import os
import threading
from collections import Counter as Tally
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from unittest import mock

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bench"
REGION = "us-east-1"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


class Counter:
    """A WSGI application around another: counts GET and HEAD requests and the bytes that were sent."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application
        self.lock = threading.Lock()
        self.requests = self.bytes = 0
        self.methods: Tally[str] = Tally()

    def __call__(self, environment: dict, start_response: Callable) -> Iterable[bytes]:
        answer = list(self.application(environment, start_response))
        with self.lock:
            self.methods[environment["REQUEST_METHOD"]] += 1
        if environment["REQUEST_METHOD"] in ("GET", "HEAD"):
            with self.lock:
                self.requests += 1
                self.bytes += sum(map(len, answer))
        return answer

    def count(self, work: Callable[[], object]) -> tuple[int, int]:
        """How many requests and bytes a piece of work needs."""
        before = self.requests, self.bytes
        work()
        return self.requests - before[0], self.bytes - before[1]

    def by_method(self, work: Callable[[], object]) -> Tally[str]:
        """How many requests of each method a piece of work needs."""
        before = self.methods.copy()
        work()
        return self.methods - before


@contextmanager
def counting_server() -> Generator[tuple[str, Counter]]:
    """The server's address, with one empty bucket, and its counter; credentials are set while the block runs."""
    counter = Counter(DomainDispatcherApplication(create_backend_app))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, counter, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with mock.patch.dict(os.environ, ENVIRONMENT):
            boto3.client("s3", endpoint_url=address, region_name=REGION).create_bucket(Bucket=BUCKET)
            yield address, counter
    finally:
        server.shutdown()
        thread.join()
