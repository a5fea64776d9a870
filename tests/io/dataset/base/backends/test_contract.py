from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from libertem.exceptions import DataSetException
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import (
    BufferedBackend,
    Decoder,
    DirectBackend,
    DtypeConversionDecoder,
    IOBackend,
    MMapBackend,
)
from libertem.io.dataset.base.backend import IOBackendImpl

Store = Callable[..., Any]
NOTHING: dict[str, Any] = {"decoder": None, "roi": None, "native_dtype": "<u2", "read_dtype": "u2"}


@pytest.fixture
def registry() -> Iterator[dict[str, type[IOBackend]]]:
    """The registry of backends, as it was before, after the test."""
    before = dict(IOBackend.registry)
    yield IOBackend.registry
    IOBackend.registry.clear()
    IOBackend.registry.update(before)


class TestRegistry:
    def test_knows_three_backends_in_this_order(self) -> None:
        script = "from libertem.io.dataset.base import IOBackend; print(*IOBackend.registry)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["mmap", "buffered", "direct"]
        assert IOBackend.registry["mmap"] is MMapBackend
        assert IOBackend.registry["buffered"] is BufferedBackend
        assert IOBackend.registry["direct"] is DirectBackend

    def test_a_subclass_registers_under_its_id(self, registry: dict[str, Any]) -> None:
        class MyBackend(IOBackend, id_="my"):
            pass

        assert MyBackend.id_ == "my"
        assert IOBackend.get_cls_by_id("my") is MyBackend
        assert list(registry)[-1] == "my"
        assert "my" in IOBackend.get_supported()

    def test_a_subclass_without_id_inherits_that_of_its_parent(self, registry: dict[str, Any]) -> None:
        class Derived(MMapBackend):
            pass

        assert Derived.id_ == "mmap"
        assert registry["mmap"] is MMapBackend

    def test_unknown_ids_are_none(self) -> None:
        assert IOBackend.get_cls_by_id("no such backend") is None

    def test_only_what_works_on_the_platform_is_supported(self, registry: dict[str, Any]) -> None:
        class Elsewhere(IOBackend, id_="elsewhere"):
            @classmethod
            def platform_supported(cls) -> bool:
                return False

        assert "elsewhere" in registry
        assert "elsewhere" not in IOBackend.get_supported()
        with pytest.raises(DataSetException, match="not offered on this platform: found elsewhere"):
            IOBackend.resolve("elsewhere")

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="direct I/O is offered on Linux only")
    def test_linux_supports_all_three(self) -> None:
        assert IOBackend.get_supported() == ["mmap", "buffered", "direct"]


class TestBackendObjects:
    @pytest.mark.parametrize("choice", ["buffered", BufferedBackend, BufferedBackend()])
    def test_ids_and_classes_stand_for_objects(self, choice: Any) -> None:
        assert type(IOBackend.resolve(choice)) is BufferedBackend

    def test_no_choice_stays_no_choice(self) -> None:
        assert IOBackend.resolve(None) is None

    @pytest.mark.parametrize("choice", ["doesn't exist", 5, int])
    def test_anything_else_is_refused_with_the_alternatives(self, choice: Any) -> None:
        with pytest.raises(DataSetException, match=r"not an I/O backend: .* expected one of \['mmap'"):
            IOBackend.resolve(choice)

    def test_defaults(self) -> None:
        assert MMapBackend().enable_readahead_hints is False
        assert BufferedBackend().max_buffer_size == 16777216
        assert DirectBackend().max_buffer_size == 16777216

    @pytest.mark.parametrize("cls", [MMapBackend, BufferedBackend, DirectBackend])
    def test_there_is_no_json_form(self, cls: type[IOBackend]) -> None:
        with pytest.raises(NotImplementedError):
            cls.from_json({})

    @pytest.mark.parametrize(
        "backend",
        [MMapBackend(True), BufferedBackend(max_buffer_size=4096), DirectBackend(max_buffer_size=4096)],
    )
    def test_options_survive_pickling(self, backend: Any) -> None:
        copy = pickle.loads(pickle.dumps(backend))
        assert type(copy) is type(backend)
        assert vars(copy) == vars(backend)
        assert len(pickle.dumps(backend)) < 200

    def test_each_reader_is_new(self) -> None:
        backend = MMapBackend()
        assert backend.get_impl() is not backend.get_impl()

    def test_readers_limit_the_size_of_tiles(self) -> None:
        assert MMapBackend().get_impl().get_max_io_size() == 2**20
        assert BufferedBackend(max_buffer_size=4096).get_impl().get_max_io_size() == 4096
        assert DirectBackend(max_buffer_size=8192).get_impl().get_max_io_size() == 8192


class TestNeedCopy:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({}, False),
            ({"sync_offset": 3}, False),
            ({"sync_offset": -1}, True),
            ({"roi": np.ones(8, dtype=bool)}, True),
            ({"read_dtype": "f4"}, True),
            ({"native_dtype": ">u2"}, True),
            ({"decoder": Decoder()}, True),
            ({"decoder": DtypeConversionDecoder()}, True),
            ({"corrections": CorrectionSet()}, False),
            ({"corrections": CorrectionSet(dark=np.zeros((4, 5)))}, True),
        ],
    )
    def test_views_need_plain_pixels_as_stored(self, change: dict[str, Any], expected: bool) -> None:
        assert MMapBackend().get_impl().need_copy(**{**NOTHING, **change}) is expected

    @pytest.mark.parametrize(("depth", "expected"), [(4, False), (5, True)])
    def test_tiles_deeper_than_a_file_are_copies(self, store: Store, depth: int, expected: bool) -> None:
        stored = store(np.zeros((8, 4, 5), np.uint16), borders=(4,))
        impl = MMapBackend().get_impl()
        assert (
            impl.need_copy(**NOTHING, tiling_scheme=stored.scheme(depth, 4, 5), fileset=stored.fileset)
            is expected
        )

    @pytest.mark.parametrize("backend", [BufferedBackend(), DirectBackend()])
    def test_what_is_read_is_always_a_copy(self, backend: IOBackend) -> None:
        assert backend.get_impl().need_copy(**NOTHING) is True


def test_the_contract_has_no_reader_of_its_own() -> None:
    with pytest.raises(NotImplementedError):
        IOBackend().get_impl()
    assert IOBackendImpl().block_source() is None


def test_a_decoder_can_ask_for_cleared_buffers(store: Store) -> None:
    class Adding(Decoder):
        def do_clear(self) -> bool:
            return True

        def get_decode(self, native_dtype: Any, read_dtype: Any) -> Any:
            def decode(inp: Any, out: Any, idx: int, native: Any, *rest: Any) -> None:
                out[idx] += inp.view(native)

            return decode

    images = np.arange(160, dtype=np.uint16).reshape(8, 4, 5)
    stored = store(images)
    (partition,) = stored.partitions(decoder=Adding())
    for tile in partition.get_tiles(stored.scheme(2, 4, 5)):
        np.testing.assert_array_equal(tile.data, images[tile.tile_slice.get()[0]])


def test_a_decoder_can_choose_how_it_sees_the_bytes(store: Store) -> None:
    class Bytes(Decoder):
        def get_native_dtype(self, inp_native_dtype: Any, read_dtype: Any) -> Any:
            return np.dtype("u1")

        def get_decode(self, native_dtype: Any, read_dtype: Any) -> Any:
            assert (native_dtype, read_dtype) == (np.dtype("<u2"), np.dtype("f4"))

            def decode(inp: Any, out: Any, idx: int, native: Any, *rest: Any) -> None:
                out[idx] = inp.view(native)[::2]

            return decode

    images = np.arange(160, dtype="<u2").reshape(8, 4, 5)
    stored = store(images)
    (tile,) = stored.partitions(decoder=Bytes())[0].get_tiles(stored.scheme(8, 4, 5))
    np.testing.assert_array_equal(tile.data, images)
