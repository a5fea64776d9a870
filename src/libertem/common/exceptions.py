"""Face: exceptions at their historic path."""

from libertem.exceptions import ExecutorSpecException, UDFException, UDFRunCancelled

__all__ = ["ExecutorSpecException", "UDFException", "UDFRunCancelled"]
