"""Messages between processes: what travels, and how.

A message is a header, a small tuple, and any number of buffers. Arrays are among the buffers and are neither
copied into a pickle nor out of it.

| bytes  | meaning                                             |
|-------:|-----------------------------------------------------|
|      8 | length of the head, little-endian                   |
| length | pickle of the header and the sizes of the buffers   |
|      … | the buffers, one after the other                    |
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import threading
import traceback
from collections import ChainMap
from collections.abc import Callable, Sequence
from functools import cache
from types import CodeType
from typing import Any

from libertem.exceptions import ExecutorError

__all__ = ["Channel", "Packed", "pack", "pack_exception", "unpack", "unpack_exception"]

Packed = Sequence[Any]
"""An object as a list of buffers; the first one is a pickle that needs the others."""

_LENGTH = struct.Struct("<Q")

JOINED_BYTES = 1 << 16
"""Small buffers travel together with the head, in one call of the operating system."""

MAX_CAUSES = 20
"""Exceptions that are sent along with one that they led to."""


class Channel:
    """One end of a connection. Any thread may send, one at a time receives.

    Parameters
    ----------
    sock : socket
        Connected. Belongs to the channel from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = io.BufferedReader(sock.makefile("rb", buffering=0), JOINED_BYTES)
        self._lock = threading.Lock()

    def send(self, header: tuple[Any, ...], packed: Packed = ()) -> None:
        """Send a message.

        Raises
        ------
        OSError
            If the other end is gone.
        """
        views = [memoryview(buffer).cast("B") for buffer in packed]
        head = pickle.dumps((header, [view.nbytes for view in views]))
        pieces: list[bytes | memoryview] = [_LENGTH.pack(len(head)), head, *views]
        with self._lock:
            try:
                if sum(map(len, pieces)) <= JOINED_BYTES:
                    self._socket.sendall(b"".join(pieces))
                else:
                    for piece in pieces:
                        self._socket.sendall(piece)
            except BaseException:
                # Part of a message has been sent, maybe. What follows would not be understood.
                self.shutdown()
                raise

    def receive(self) -> tuple[tuple[Any, ...], list[bytearray]]:
        """Wait for a message.

        Raises
        ------
        EOFError
            If the other end is gone.
        """
        try:
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
            header, sizes = pickle.loads(self._read(length))
            return header, [self._read(size) for size in sizes]
        except OSError as err:
            raise EOFError("the connection broke off") from err

    def _read(self, n_bytes: int) -> bytearray:
        data = bytearray(n_bytes)
        rest = memoryview(data)
        while rest:
            n = self._reader.readinto(rest)
            if not n:
                raise EOFError("the connection was closed")
            rest = rest[n:]
        return data

    def shutdown(self) -> None:
        """Break off the connection; both ends notice that while they receive."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        # It is broken already.
        except OSError:
            pass

    def close(self) -> None:
        """Release the connection; nobody may be receiving any more. Threads that are sending get an error."""
        self.shutdown()
        with self._lock:
            self._reader.close()
            self._socket.close()

    def leave(self) -> None:
        """Leave the connection to the process from which this one was forked."""
        # Locks may be held by threads that this process does not have.
        os.close(self._socket.detach())


def pack(obj: Any) -> list[Any]:
    """An object as buffers, also if it or its class was written in a notebook."""
    buffers: list[pickle.PickleBuffer] = []
    with io.BytesIO() as body:
        _make_pickler()(body, protocol=5, buffer_callback=buffers.append).dump(obj)
        return [body.getvalue(), *(buffer.raw() for buffer in buffers)]


@cache
def _make_pickler() -> Any:
    """A pickler of code that keeps the names of source files for tracebacks; cloudpickle drops them."""
    import cloudpickle

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # untyped
        dispatch_table = ChainMap({CodeType: _reduce_code}, cloudpickle.CloudPickler.dispatch_table)

    return Pickler


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    import cloudpickle

    reduce = cloudpickle.CloudPickler.dispatch_table[CodeType]
    return _rebuild_code, (*reduce(code), code.co_filename)


def _rebuild_code(make: Callable[..., CodeType], args: tuple[Any, ...], filename: str) -> CodeType:
    return make(*args).replace(co_filename=filename)


def unpack(packed: Packed) -> Any:
    """The object. Arrays in it lie in the buffers."""
    return pickle.loads(packed[0], buffers=packed[1:])


def pack_exception(err: BaseException) -> list[Any]:
    """An exception with its traceback and those that led to it; never fails."""
    from tblib import Traceback

    chain: list[tuple[str | None, bytes | None, str, Any]] = []
    link: str | None = None
    current: BaseException | None = err
    while current is not None and len(chain) < MAX_CAUSES:
        tb = None if current.__traceback__ is None else Traceback(current.__traceback__).to_dict()
        text = "".join(traceback.format_exception(current, chain=False)).rstrip()
        chain.append((link, _pack_one(current), text, tb))
        if current.__cause__ is not None:
            link, current = "cause", current.__cause__
        elif current.__suppress_context__:
            current = None
        else:
            link, current = "context", current.__context__
    return [pickle.dumps(chain)]


def _pack_one(err: BaseException) -> bytes | None:
    """An exception as bytes, None if it would not arrive."""
    import cloudpickle

    try:
        packed: bytes = cloudpickle.dumps(err)
        pickle.loads(packed)
    # Code of users decides how their exceptions travel, and may fail in any way.
    except Exception:
        return None
    return packed


def _unpack_one(packed: bytes | None, text: str) -> BaseException:
    """The exception, or one of the library that tells what happened."""
    if packed is not None:
        try:
            err: BaseException = pickle.loads(packed)
            return err
        # See above.
        except Exception:  # noqa: S110
            pass
    return ExecutorError(f"an exception in a worker process, which itself cannot be sent:\n{text}")


def unpack_exception(packed: Packed) -> BaseException:
    """The exception, with frames of the other process in its traceback."""
    from tblib import Traceback

    errors: list[BaseException] = []
    for link, one, text, tb in pickle.loads(packed[0]):
        err = _unpack_one(one, text)
        if tb is not None:
            err = err.with_traceback(Traceback.from_dict(tb).as_traceback())
        if link == "cause":
            errors[-1].__cause__ = err
        elif link == "context":
            errors[-1].__context__ = err
        errors.append(err)
    return errors[0]
