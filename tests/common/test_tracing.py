from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from libertem.common.tracing import maybe_setup_tracing


class FakeSDK:
    """Stands for OpenTelemetry, which is not installed with the library; keeps what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.providers: list[Any] = []
        sdk = self

        class TracerProvider:
            def __init__(self, resource: object) -> None:
                self.resource = resource
                self.processors: list[object] = []

            def add_span_processor(self, processor: object) -> None:
                self.processors.append(processor)

        modules: dict[str, dict[str, object]] = {
            "opentelemetry.trace": {
                "get_tracer_provider": lambda: sdk.providers[-1] if sdk.providers else None,
                "set_tracer_provider": sdk.providers.append,
            },
            "opentelemetry.sdk.trace": {"TracerProvider": TracerProvider},
            "opentelemetry.sdk.trace.export": {"BatchSpanProcessor": lambda exporter: ("batch", exporter)},
            "opentelemetry.sdk.resources": {"Resource": type("Resource", (), {"create": staticmethod(dict)})},
            "opentelemetry.exporter.otlp.proto.grpc.trace_exporter": {
                "OTLPSpanExporter": lambda endpoint: ("otlp", endpoint)
            },
        }
        for name, content in modules.items():
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
        for name in (
            "opentelemetry",
            "opentelemetry.sdk",
            "opentelemetry.exporter",
            "opentelemetry.exporter.otlp",
            "opentelemetry.exporter.otlp.proto",
            "opentelemetry.exporter.otlp.proto.grpc",
        ):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))


def test_nothing_happens_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = FakeSDK(monkeypatch)
    monkeypatch.delenv("OTEL_ENABLE", raising=False)
    maybe_setup_tracing(service_name="test")
    assert sdk.providers == []


def test_traces_are_exported_under_the_name_given(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = FakeSDK(monkeypatch)
    monkeypatch.setenv("OTEL_ENABLE", "1")
    maybe_setup_tracing("worker", service_id="cpu-0", otlp_endpoint="http://collector:4317")
    (provider,) = sdk.providers
    assert provider.resource == {"service.name": "worker", "service.instance.id": "cpu-0"}
    assert provider.processors == [("batch", ("otlp", "http://collector:4317"))]


def test_a_second_setup_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = FakeSDK(monkeypatch)
    monkeypatch.setenv("OTEL_ENABLE", "1")
    maybe_setup_tracing("worker")
    maybe_setup_tracing("another")
    assert [provider.resource for provider in sdk.providers] == [{"service.name": "worker"}]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    monkeypatch.setenv("OTEL_ENABLE", "1")
    with pytest.raises(ImportError, match="install opentelemetry-sdk"):
        maybe_setup_tracing("worker")
