"""Convert the parameters of a data set from and to JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from libertem.exceptions import UnsupportedBackendError

__all__ = ["MessageConverter"]


class MessageConverter:
    """Base class: a subclass gives `SCHEMA` and, if names or types differ, the two conversions."""

    SCHEMA: ClassVar[Mapping[str, Any] | None] = None
    """JSON schema (draft 7) of the messages."""

    io_backends: ClassVar[Mapping[str, Callable[[], Any]]] = {}
    """I/O backend classes by id. Filled in by the package that defines the backends."""

    def validate(self, raw: Any) -> None:
        """Check a message against `SCHEMA`.

        Raises
        ------
        NotImplementedError
            If the class has no `SCHEMA`.
        jsonschema.ValidationError
            If the message does not fit it.
        """
        import jsonschema

        if self.SCHEMA is None:
            raise NotImplementedError(f"{type(self).__name__} has no SCHEMA")
        jsonschema.validate(raw, self.SCHEMA, cls=jsonschema.Draft7Validator)

    def to_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a message into parameters of a data set.

        The id of an I/O backend becomes an instance of that backend with its default options.

        Raises
        ------
        UnsupportedBackendError
            If no I/O backend has that id.
        """
        self.validate(raw)
        params = dict(self.convert_to_python(raw))
        if raw.get("io_backend") is not None:
            params["io_backend"] = self._make_io_backend(raw["io_backend"])
        return params

    def convert_to_python(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Rename and convert the values of a valid message; as they are by default."""
        return raw

    def from_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Turn parameters of a data set into a valid message, the reverse of `to_python`."""
        message = dict(self.convert_from_python(raw))
        message.pop("io_backend", None)
        io_backend = raw.get("io_backend")
        if io_backend is not None:
            message["io_backend"] = io_backend if isinstance(io_backend, str) else io_backend.id_
        self.validate(message)
        return message

    def convert_from_python(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Rename and convert parameters; as they are by default."""
        return raw

    def _make_io_backend(self, backend_id: str) -> Any:
        try:
            make = self.io_backends[backend_id]
        except KeyError as err:
            raise UnsupportedBackendError(
                "unknown I/O backend", found=repr(backend_id), expected=f"one of {list(self.io_backends)}"
            ) from err
        return make()
