"""Send OpenTelemetry traces, if the person who runs the process asks for it.

`OTEL_ENABLE` switches tracing on, `OTEL_EXPORTER_OTLP_ENDPOINT` says where the traces go.
"""

from __future__ import annotations

import os
from importlib import import_module

__all__ = ["maybe_setup_tracing"]


def maybe_setup_tracing(
    service_name: str, service_id: str | None = None, otlp_endpoint: str | None = None
) -> None:
    """Export the traces of this process, unless `OTEL_ENABLE` is unset or empty.

    A process that already exports traces is left as it is.

    Parameters
    ----------
    service_name : str
        Name under which the process shows up, for example ``"worker"``.
    service_id : str, optional
        Tells processes with the same name apart.
    otlp_endpoint : str, optional
        Address of an OTLP/gRPC collector; `OTEL_EXPORTER_OTLP_ENDPOINT` by default.

    Raises
    ------
    ImportError
        If tracing is switched on but OpenTelemetry is not installed.
    """
    if not os.environ.get("OTEL_ENABLE"):
        return
    # Optional packages, imported by name so that type checks pass without them.
    try:
        trace = import_module("opentelemetry.trace")
        sdk = import_module("opentelemetry.sdk.trace")
        export = import_module("opentelemetry.sdk.trace.export")
        resources = import_module("opentelemetry.sdk.resources")
        otlp = import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    except ImportError as err:
        raise ImportError(
            "OTEL_ENABLE is set, but OpenTelemetry cannot be imported "
            "(install opentelemetry-sdk and opentelemetry-exporter-otlp-proto-grpc, or unset OTEL_ENABLE)",
            name=err.name,
        ) from err
    if isinstance(trace.get_tracer_provider(), sdk.TracerProvider):
        return
    attributes = {"service.name": service_name}
    if service_id is not None:
        attributes["service.instance.id"] = service_id
    provider = sdk.TracerProvider(resource=resources.Resource.create(attributes))
    exporter = otlp.OTLPSpanExporter(endpoint=otlp_endpoint)
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
