from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libertem.exceptions import DataSetException
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.hdf5.filters import ChunkDecoder, Filter, filter_name, why_not_decodable
from libertem.testing.writers.hdf5 import FILTERS, filter_arguments, write_hdf5

EXECUTOR = InlineJobExecutor()
LEFT_TO_HDF5 = {"scale-offset"}
# 105 elements do not fill the last block of eight, 8192 are a block and more.
SHAPES = [(2, 105, 1), (1, 64, 128), (2, 3, 5)]


def make_frames(shape: tuple[int, ...], dtype: str, *, noisy: bool) -> npt.NDArray[Any]:
    rng = np.random.default_rng(4)
    if noisy:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return rng.integers(0, 256, n_bytes, dtype=np.uint8).view(dtype).reshape(shape)
    return rng.poisson(2, shape).astype(dtype)


def facts(ds: Any) -> dict[str, Any]:
    return {fact["name"]: fact["value"] for fact in ds.diagnostics}


def read_chunks(path: Path) -> tuple[list[tuple[int, bytes]], tuple[Filter, ...]]:
    """Stored chunks with their masks, in the order of frames, and the filters."""
    with h5py.File(path) as file:
        dset = file["data"]
        plist = dset.id.get_create_plist()
        filters = [plist.get_filter(k) for k in range(plist.get_nfilters())]
        chunks = [dset.id.read_direct_chunk((i, 0, 0)) for i in range(0, dset.shape[0], dset.chunks[0])]
    return chunks, tuple(Filter(f[0], f[2]) for f in filters)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("name", sorted(set(FILTERS) - LEFT_TO_HDF5))
def test_chunks_are_decoded_bit_for_bit(name: str, noisy: bool, tmp_path: Path) -> None:
    for shape in SHAPES:
        for dtype in ("u1", "<u2", ">u4", "<f8"):
            frames = make_frames((2 * shape[0], *shape[1:]), dtype, noisy=noisy)
            path = write_hdf5(tmp_path / "x.h5", frames, chunks=shape, filters=name)
            chunks, filters = read_chunks(path)
            assert why_not_decodable(filters) is None
            decoder = ChunkDecoder(filters, frames.nbytes // 2)
            out = np.empty(frames.nbytes // 2, dtype=np.uint8)
            for part, (mask, stored) in zip(np.split(frames, 2), chunks, strict=True):
                decoder.decode(np.frombuffer(stored, dtype=np.uint8), mask, out)
                assert out.tobytes() == part.tobytes()


@pytest.mark.parametrize("name", ["lzf", "blosc"])
def test_incompressible_chunks_are_stored_as_they_are(name: str, tmp_path: Path) -> None:
    frames = make_frames((2, 64, 64), "u1", noisy=True)
    path = write_hdf5(tmp_path / "x.h5", frames, chunks=(1, 64, 64), filters=name)
    assert {mask for mask, _ in read_chunks(path)[0]} == {1}


def test_a_block_of_its_own_size_is_no_stored_block_for_bitshuffle() -> None:
    """The LZ4 filter would take it for one; here it is compressed data like any other."""
    import imagecodecs

    rng = np.random.default_rng(1)
    for n_repeated in range(4, 16):
        start = rng.integers(0, 256, 64)
        rest = rng.integers(0, 256, 64 - n_repeated)
        block = np.concatenate([start, start[-n_repeated:], rest]).astype(np.uint8)
        packed = imagecodecs.lz4_encode(block)
        if len(packed) == block.size:
            break
    else:
        raise AssertionError("no block compresses to its own size")
    stream = (128).to_bytes(8, "big") + (128).to_bytes(4, "big") + len(packed).to_bytes(4, "big") + packed
    out = np.empty(128, dtype=np.uint8)
    stored = np.frombuffer(stream, dtype=np.uint8)
    ChunkDecoder((Filter(32008, (0, 4, 1, 128, 2)),), 128).decode(stored, 0, out)
    bits = np.unpackbits(block.reshape(8, 16), axis=1, bitorder="little")
    np.testing.assert_array_equal(out, np.packbits(bits, axis=0, bitorder="little")[0])


@pytest.mark.parametrize("content", ["zeros", "constant", "noise", "counts"])
@pytest.mark.parametrize("chunks", [(1, 300, 500), (3, 300, 500), (2, 64, 50), (1, 130, 500)])
def test_blosc2_arrays_are_put_in_order(content: str, chunks: Any, tmp_path: Path) -> None:
    """Blosc2 cuts large chunks into blocks, and stores zeros as a note that they are zeros."""
    rng = np.random.default_rng(0)
    kinds = {
        "zeros": np.zeros((4, 300, 500)),
        "constant": np.full((4, 300, 500), 7),
        "noise": rng.integers(0, 1 << 32, (4, 300, 500)),
        "counts": rng.poisson(2, (4, 300, 500)),
    }
    frames = kinds[content].astype("<u4")
    path = write_hdf5(tmp_path / "x.h5", frames, chunks=chunks, filters="blosc2")
    ds = load("hdf5", path=path, executor=EXECUTOR)
    (partition,) = ds.get_partitions()
    np.testing.assert_array_equal(partition.get_macrotile(dest_dtype="<u4").data, frames)
    assert facts(ds)["Stored as"] == "chunks (blosc2), decoded in threads"


def test_blosc2_frames_of_several_chunks_are_left_to_hdf5(tmp_path: Path) -> None:
    frames = make_frames((2, 64, 64), "<u2", noisy=False)
    path = write_hdf5(tmp_path / "x.h5", frames, chunks=(1, 64, 64), filters="blosc2")
    with h5py.File(path, "r+") as file:
        mask, stored = file["data"].id.read_direct_chunk((0, 0, 0))
        # What comes out of each chunk is less than what comes out of the frame.
        file["data"].id.write_direct_chunk((0, 0, 0), stored[:58] + bytes(4) + stored[62:], mask)
    with pytest.warns(RuntimeWarning, match="a Blosc2 frame of several chunks"):
        ds = load("hdf5", path=path, executor=EXECUTOR)
    assert facts(ds)["Stored as"] == "what only HDF5 can read: a Blosc2 frame of several chunks"


@pytest.mark.parametrize("name", ["bitshuffle-lz4", "bitshuffle-zstd", "gzip"])
@pytest.mark.parametrize(("width", "usual"), [(128, True), (96, True), (100, False)])
def test_several_chunks_are_decoded_at_once_where_that_is_possible(
    name: str, width: int, usual: bool, tmp_path: Path
) -> None:
    frames = make_frames((6, 128, width), "<u2", noisy=False)
    path = write_hdf5(tmp_path / "x.h5", frames, chunks=(1, 128, width), filters=name)
    chunks, filters = read_chunks(path)
    stored = [np.frombuffer(raw, dtype=np.uint8) for _, raw in chunks]
    sizes = np.array([raw.size for raw in stored])
    out = np.zeros(frames.nbytes, dtype=np.uint8)
    decoder = ChunkDecoder(filters, frames[0].nbytes)
    at_once = decoder.decode_joint(np.concatenate(stored), np.cumsum(sizes) - sizes, sizes, out)
    assert at_once == (usual and name == "bitshuffle-lz4")
    if at_once:
        assert out.tobytes() == frames.tobytes()
    ds = load("hdf5", path=path, executor=EXECUTOR)
    (partition,) = ds.get_partitions()
    np.testing.assert_array_equal(partition.get_macrotile(dest_dtype="<u2").data, frames)


def test_a_damaged_chunk_among_several_is_named(tmp_path: Path) -> None:
    frames = make_frames((6, 128, 128), "<u2", noisy=False)
    path = write_hdf5(tmp_path / "x.h5", frames, chunks=(1, 128, 128), filters="bitshuffle-lz4")
    with h5py.File(path) as file:
        chunk = file["data"].id.get_chunk_info(4)
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset + 16 : chunk.byte_offset + chunk.size] = b"\xff" * (chunk.size - 16)
    path.write_bytes(raw)
    ds = load("hdf5", path=path, executor=EXECUTOR)
    (partition,) = ds.get_partitions()
    with pytest.raises(
        DataSetException, match=f"chunk at byte {chunk.byte_offset}: a chunk cannot be decoded"
    ):
        partition.get_macrotile()


def test_the_example_of_the_sheet() -> None:
    """First bytes of a chunk of 21440 pixels of 16 bit: 42880 bytes in blocks of 8192."""
    header = bytes.fromhex("000000000000a78000002000000005f1")
    decoder = ChunkDecoder((Filter(32008, (0, 3, 2, 0, 2)),), 42880)
    with pytest.raises(DataSetException, match="cannot be decoded"):
        decoder.decode(np.frombuffer(header, dtype=np.uint8), 0, np.empty(42880, dtype=np.uint8))
    with pytest.raises(DataSetException, match="42880 bytes announced, 100 expected"):
        ChunkDecoder((Filter(32008, (0, 3, 2, 0, 2)),), 100).decode(
            np.frombuffer(header, dtype=np.uint8), 0, np.empty(100, dtype=np.uint8)
        )


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ((Filter(4, (0,)),), "szip can only be decoded by HDF5"),
        ((Filter(2, (2,)), Filter(99999, ())), "filter 99999 can only"),
        ((Filter(32000, ()), Filter(1, (4,))), "more than once"),
        ((Filter(32008, (0, 3)),), "bitshuffle with unknown parameters"),
        ((Filter(32008, (0, 3, 2, 0, 9)),), "bitshuffle with unknown parameters"),
        ((Filter(2, ()),), "shuffle without parameters"),
    ],
)
def test_what_is_left_to_hdf5(filters: tuple[Filter, ...], reason: str) -> None:
    found = why_not_decodable(filters)
    assert found is not None
    assert reason in found
    assert filter_name(32013) == "zfp"


@pytest.mark.parametrize("name", sorted(set(FILTERS) - LEFT_TO_HDF5))
def test_damaged_chunks_raise_the_family(name: str, tmp_path: Path) -> None:
    frames = make_frames((2, 16, 16), "<u2", noisy=False)
    path = write_hdf5(tmp_path / "x.h5", frames, chunks=(2, 16, 16), filters=name)
    (chunk,), filters = read_chunks(path)
    decoder = ChunkDecoder(filters, frames.nbytes)
    out = np.empty(frames.nbytes, dtype=np.uint8)
    rng = np.random.default_rng(0)
    for n in (0, 1, 11, 12, 13, len(chunk[1]) // 2, len(chunk[1]) - 1):
        with pytest.raises(DataSetException):
            decoder.decode(np.frombuffer(chunk[1][:n], dtype=np.uint8), chunk[0], out)
    for _ in range(50):
        damaged = np.frombuffer(chunk[1], dtype=np.uint8).copy()
        damaged[rng.integers(0, damaged.size, 3)] = rng.integers(0, 256, 3)
        try:
            decoder.decode(damaged, chunk[0], out)
        except DataSetException:
            continue


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=st.binary(max_size=100))
@pytest.mark.parametrize("filter_id", [1, 32000, 32001, 32004, 32008, 32015, 32026])
def test_any_bytes_decode_or_raise_the_family(filter_id: int, raw: bytes) -> None:
    values = (0, 4, 2, 0, 2 if len(raw) % 2 else 3) if filter_id == 32008 else ()
    decoder = ChunkDecoder((Filter(filter_id, values),), 64)
    try:
        decoder.decode(np.frombuffer(raw, dtype=np.uint8), 0, np.empty(64, dtype=np.uint8))
    except DataSetException as err:
        assert "chunk" in str(err)


def test_a_wrong_checksum_names_file_and_chunk(tmp_path: Path) -> None:
    frames = make_frames((2, 16, 16), "<u2", noisy=False)
    path = write_hdf5(tmp_path / "x.h5", frames, chunks=(1, 16, 16), filters="fletcher32")
    with h5py.File(path) as file:
        offset = file["data"].id.get_chunk_info(1).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 5] ^= 1
    path.write_bytes(raw)
    ds = load("hdf5", path=path, executor=EXECUTOR)
    (partition,) = ds.get_partitions()
    with pytest.raises(
        DataSetException, match=rf"x\.h5: /data, chunk at byte {offset}.*checksum.*copy it again"
    ):
        partition.get_macrotile()


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.filterwarnings("ignore:Loading compressed HDF5:RuntimeWarning")
def test_files_with_any_filter_are_read(name: str, tmp_path: Path) -> None:
    frames = make_frames((5, 9, 7), "<u2", noisy=False)
    ds = load(
        "hdf5",
        path=write_hdf5(tmp_path / "x.h5", frames, chunks=(2, 4, 7), filters=name),
        executor=EXECUTOR,
    )
    (partition,) = ds.get_partitions()
    np.testing.assert_array_equal(partition.get_macrotile(dest_dtype="<u2").data, frames)
    assert ("only HDF5 can read" in facts(ds)["Stored as"]) == (name in LEFT_TO_HDF5)
    assert filter_arguments("none") == {}


def test_only_data_that_hdf5_has_to_decode_give_a_warning(tmp_path: Path) -> None:
    frames = make_frames((5, 9, 7), "<u2", noisy=False)
    path = write_hdf5(tmp_path / "x.h5", frames, chunks=(2, 4, 7), filters="scale-offset")
    with pytest.warns(
        RuntimeWarning, match="Loading compressed HDF5.*scale-offset can only be decoded by HDF5"
    ):
        load("hdf5", path=path, executor=EXECUTOR)
