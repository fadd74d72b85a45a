"""An OpenTelemetry collector's door: OTLP over HTTP, real protobuf, what came in kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Answers with `status`; takes spans when that is 200. While it `hangs` it answers nothing."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.requests = 0
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}
        self.scopes: set[tuple[str, str]] = set()  # Name, and the schema of its attributes.
        self.answers = threading.Event()
        self.answers.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()

    def turns(self) -> list[Span]:
        return [span for span in self.spans if span.name.startswith("process ")]

    def inside(self, turn: Span) -> dict[str, Span]:
        """The stages of a turn by their names."""
        own = [span for span in self.spans if span.parent_span_id == turn.span_id]
        return {attributes(span.attributes)["odradek.stage"]: span for span in own}

    def _take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for of_resource in request.resource_spans:
            self.resource = attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.scopes.add((of_scope.scope.name, of_scope.schema_url))
                self.spans += of_scope.spans

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests += 1
                collector.answers.wait(60)
                if collector.status == 200:
                    assert self.path == "/v1/traces"
                    assert self.headers["Content-Type"] == "application/x-protobuf"
                    collector._take(body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    collector = Collector(port)
    try:
        yield collector
    finally:
        collector.close()


def attributes(pairs: Any) -> dict[str, Any]:
    """Attributes as Python has them."""

    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value"))

    return {pair.key: value(pair) for pair in pairs}
