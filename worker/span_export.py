"""Where spans go: the OpenTelemetry SDK, set up by its own OTEL_* variables, sending OTLP.

A turn only puts its spans into the SDK's queue, which is bounded and drops what is too much; a
thread of the SDK's sends them. A collector that is away, slow or unwell costs spans and nothing
else. That it is so is said once, and once when it is over. Leaving waits `CLOSE_S` for it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from schemas.errors import SettingsError
from worker.background import Call
from worker.logs import fields
from worker.model import Model
from worker.tracing import Places, Tracing

log = logging.getLogger(__name__)

CLOSE_S = 2.0
LINKS_MAX = 128  # Where OTEL_SPAN_LINK_COUNT_LIMIT says nothing: the SDK's own default.
PROTOCOL = "http/protobuf"
# The conventions that our spans follow.
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
# Who says of a failed export why, at each try of each batch; and who of each span dropped.
_EXPORTER_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_QUEUE_LOG = "opentelemetry.sdk._shared_internal"


def tracing(places: Places, model: Callable[[], Model], http_port: int) -> Tracing:
    """Return the tracing of a worker, and have its spans sent from now on.

    `model` returns the model of the turn in hand.

    Raises:
        SettingsError: OpenTelemetry's own variables say what cannot be done.
    """
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := os.environ.get(name):
            if protocol != PROTOCOL:
                raise SettingsError(
                    f"{name} is {protocol!r}; a worker's spans go by {PROTOCOL} only, mostly to "
                    "port 4318. Not starting"
                )
            break
    try:
        limits = SpanLimits()
        provider = TracerProvider(
            resource=_resource(http_port), shutdown_on_exit=False, span_limits=limits
        )
        exporter = OTLPSpanExporter()
        provider.add_span_processor(BatchSpanProcessor(Sending(exporter)))
    except (ValueError, RuntimeError) as error:
        raise SettingsError(
            f"the OTEL_* variables cannot be used: {error}. Not starting"
        ) from error
    links_max = LINKS_MAX if limits.max_links is None else limits.max_links

    def close() -> None:
        if not Call(provider.shutdown).wait(CLOSE_S):
            log.warning("The last spans are not sent: it takes longer than %g s.", CLOSE_S)
            # Else its thread goes on trying, for a minute.
            exporter.shutdown()  # type: ignore[no-untyped-call]

    tracer = provider.get_tracer("odradek", _version(), SCHEMA)
    return Tracing(tracer, places, model, links_max, close)


class Sending(SpanExporter):
    """Sends spans, and says once when they begin to be lost, and once when that is over; why a
    batch first failed it says even where the queue was full before.

    The SDK says it of each batch, and of each span that its queue has no room for: those lines
    are read here, and end here.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._why: str | None = None  # What the exporter has logged of this batch first.
        self._losing = False
        self._failed = False  # A batch has, and that is said, since they began to be lost.
        self._lost = 0  # Spans of batches that failed.
        self._dropped = 0  # Spans that the queue had no room for, by the worker's thread.
        self._dropped_before = 0
        _first_filter(_EXPORTER_LOG, self._hear_exporter)
        _first_filter(_QUEUE_LOG, self._hear_queue)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._why = None
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001  # Whatever it is, it costs spans and no more.
            self._why, result = str(error), SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            # Also after "made faster than they are sent", which may only be what comes of it.
            self._lose(f"the collector did not take them: {self._why}", again=not self._failed)
            self._failed = True
        elif self._losing and self._dropped == self._dropped_before:
            self._losing = self._failed = False
            lost, self._lost = self._lost + self._dropped, 0
            self._dropped = 0
            log.info("Spans are sent again; %d were lost.", lost, extra=fields(outcome="ok"))
        self._dropped_before = self._dropped
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def _lose(self, why: str, *, again: bool = False) -> None:
        if again or not self._losing:
            self._losing = True
            log.warning(
                "Spans are lost, %s. Events are scored as before; said once, until it is over.",
                why,
                extra=fields(outcome="failed"),
            )

    def _hear_exporter(self, record: logging.LogRecord) -> bool:
        self._why = self._why or record.getMessage().rstrip(".")
        return False

    def _hear_queue(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith("Queue full"):
            return True
        self._dropped += 1
        self._lose(
            "they are made faster than they are sent: the collector is slow or does not answer, "
            "or they are too many (sample, by OTEL_TRACES_SAMPLER)"
        )
        return False


def _first_filter(logger: str, hear: Callable[[logging.LogRecord], bool]) -> None:
    filters = logging.getLogger(logger).filters
    filters.insert(0, hear)


def _resource(http_port: int) -> Resource:
    """Return what all spans say of this worker; OTEL_SERVICE_NAME and the like come first."""
    ours = Resource.create(
        {
            "service.name": "odradek-worker",
            "service.version": _version(),
            # As Prometheus has it, for one to be found by the other.
            "service.instance.id": f"{socket.gethostname()}:{http_port}",
        }
    )
    return ours.merge(OTELResourceDetector().detect())


def _version() -> str:
    try:
        return version("odradek")
    except PackageNotFoundError:
        return "unknown"
