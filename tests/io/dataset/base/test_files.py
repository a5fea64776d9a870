from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.common import Shape
from libertem.exceptions import DataSetException
from libertem.io.dataset.base import File, FileSet, FileTree, TilingScheme
from libertem.io.dataset.base.files import OffsetsSizes


def make_file(start: int, stop: int, **kwargs: Any) -> File:
    return File("f.bin", start, stop, native_dtype=np.uint16, sig_shape=(2, 3), **kwargs)


def make_set(*borders: int) -> FileSet:
    return FileSet([make_file(start, stop) for start, stop in itertools.pairwise(borders)])


class TestFile:
    def test_describes_a_range_of_images(self) -> None:
        file = File("f.bin", np.int64(2), np.int64(6), ">u2", Shape((2, 3), 2), file_header=100)
        assert (file.path, file.start_idx, file.end_idx, file.num_frames) == ("f.bin", 2, 6, 4)
        assert type(file.start_idx) is int
        assert file.sig_shape == (2, 3)
        assert type(file.sig_shape) is tuple
        assert file.native_dtype == np.dtype(">u2")
        assert file.file_header_bytes == 100
        assert repr(make_file(0, 4)) == "<File 0:4>"

    def test_documented_example_of_offsets_and_sizes(self) -> None:
        file = make_file(0, 4, file_header=100, frame_header=16, frame_footer=8)
        slicing = file.get_offsets_sizes(254)
        assert slicing == (100, 10, 8, 6)
        assert slicing._fields == ("file_offset", "skip_end", "frame_offset", "frame_size")

    @pytest.mark.parametrize("trailing", [0, 1, 2, 4, 6, 12, 100])
    def test_trailing_bytes_are_cut_off_whatever_their_number(self, trailing: int) -> None:
        frames = np.arange(3 * 4, dtype=np.uint16).reshape(3, 4)
        raw = frames.tobytes() + b"\xff" * trailing
        file = File("f.bin", 0, 3, np.uint16, (2, 2))
        slicing = file.get_offsets_sizes(len(raw))
        assert slicing == OffsetsSizes(0, trailing, 0, 4)
        np.testing.assert_array_equal(file.get_array_from_memview(memoryview(raw), slicing), frames)

    def test_a_truncated_file_is_refused(self) -> None:
        with pytest.raises(
            DataSetException, match=r"f\.bin: .* found 47 bytes, expected 48 bytes for 4 frames"
        ):
            make_file(0, 4).get_offsets_sizes(47)

    @pytest.mark.parametrize("kwargs", [{"frame_header": 3}, {"frame_footer": 1}])
    def test_only_whole_items_can_be_skipped_in_an_array(self, kwargs: dict[str, int]) -> None:
        with pytest.raises(AssertionError):
            make_file(0, 4, **kwargs).get_offsets_sizes(1000)

    @given(
        n=st.integers(1, 5),
        dtype=st.sampled_from(["u1", "<u2", ">u2", "<f4"]),
        header=st.integers(0, 3),
        footer=st.integers(0, 3),
        file_header=st.integers(0, 9),
        trailing=st.integers(0, 9),
    )
    def test_a_file_is_viewed_without_headers_and_footers(
        self, n: int, dtype: str, header: int, footer: int, file_header: int, trailing: int
    ) -> None:
        item = np.dtype(dtype).itemsize
        frames = np.arange(n * 6).astype(dtype).reshape(n, 6)
        raw = b"h" * file_header
        for frame in frames:
            raw += b"<" * header * item + frame.tobytes() + b">" * footer * item
        raw += b"t" * trailing
        file = File("f.bin", 10, 10 + n, dtype, (2, 3), footer * item, header * item, file_header)
        array = file.get_array_from_memview(memoryview(raw), file.get_offsets_sizes(len(raw)))
        assert array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(array, frames)
        assert not array.flags.owndata


class TestFileTree:
    def test_a_node_is_not_empty(self) -> None:
        with pytest.raises(ValueError, match="low should be < high"):
            FileTree(low=3, high=3, value=None, idx=0, left=None, right=None)

    def test_no_files_make_no_tree(self) -> None:
        assert FileTree.make([]) is None

    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=40),
        st.integers(-2, 250),
    )
    def test_finds_the_file_of_a_frame(self, gaps_and_lengths: list[tuple[int, int]], frame: int) -> None:
        files, start = [], 0
        for gap, length in gaps_and_lengths:
            files.append(make_file(start + gap, start + gap + length))
            start += gap + length
        tree = FileTree.make(files)
        assert tree is not None
        owners = [(i, file) for i, file in enumerate(files) if file.start_idx <= frame < file.end_idx]
        if owners:
            assert tree.search_start(frame) == owners[0]
        else:
            with pytest.raises(IndexError, match=f"no file holds frame {frame}"):
                tree.search_start(frame)

    def test_is_balanced(self) -> None:
        tree = FileTree.make(list(make_set(*range(1001))))

        def depth(node: FileTree | None) -> int:
            return 0 if node is None else 1 + max(depth(node.left), depth(node.right))

        assert depth(tree) == 10


class TestFileSet:
    def test_is_not_empty(self) -> None:
        with pytest.raises(AssertionError):
            FileSet([])

    def test_is_a_sequence_of_files(self) -> None:
        files = [make_file(0, 6), make_file(6, 12)]
        fileset = FileSet(files)
        assert len(fileset) == 2
        assert list(fileset) == files
        assert fileset[1] is files[1]

    @pytest.mark.parametrize(
        ("start", "stop", "expected"), [(0, 5, [0]), (0, 6, [0, 1]), (6, 6, [1]), (11, 11, [1])]
    )
    def test_the_end_of_a_range_is_included(self, start: int, stop: int, expected: list[int]) -> None:
        fileset = make_set(0, 6, 12)
        part = fileset.get_for_range(start, stop)
        assert type(part) is FileSet
        assert list(part) == [fileset[i] for i in expected]

    def test_a_range_behind_the_last_file_is_refused(self) -> None:
        with pytest.raises(IndexError, match="no file holds frame 12"):
            make_set(0, 6, 12).get_for_range(12, 13)

    def test_files_from_a_frame_on(self) -> None:
        fileset = make_set(0, 3, 5, 9)
        assert list(fileset.files_from(4)) == [fileset[1], fileset[2]]

    def test_as_array(self) -> None:
        fileset = FileSet([make_file(0, 6, file_header=16), make_file(6, 12, file_header=8)])
        array = fileset.get_as_arr()
        assert array.dtype == np.int64
        assert array.tolist() == [[0, 6, 0, 16], [6, 12, 1, 8]]

    def test_indices_count_within_a_part(self) -> None:
        assert make_set(0, 6, 12).get_for_range(8, 11).get_as_arr().tolist() == [[6, 12, 0, 0]]

    def test_state_of_a_subclass_survives(self) -> None:
        class WithTable(FileSet):
            def __init__(self, files: list[File], table: npt.NDArray[Any]) -> None:
                super().__init__(files, frame_header_bytes=4, frame_footer_bytes=6)
                self.table = table

        table = np.arange(3)
        part = WithTable(list(make_set(0, 6, 12)), table).get_for_range(7, 8)
        assert isinstance(part, WithTable)
        assert part.table is table
        assert (part._frame_header_bytes, part._frame_footer_bytes) == (4, 6)
        assert len(part) == 1

    def test_read_ranges_count_bytes_in_the_file(self) -> None:
        fileset = FileSet(
            [make_file(0, 4, file_header=100, frame_header=16, frame_footer=8)],
            frame_header_bytes=16,
            frame_footer_bytes=8,
        )
        scheme = TilingScheme.make_for_shape(Shape((2, 1, 3), 2), Shape((4, 2, 3), 2))
        slices, ranges, indices = fileset.get_read_ranges(
            start_at_frame=1, stop_before_frame=4, dtype=np.float16, tiling_scheme=scheme
        )
        assert slices[:, 0].tolist() == [[1, 0, 0], [1, 1, 0], [3, 0, 0], [3, 1, 0]]
        assert ranges.tolist() == [
            [[0, 152, 158], [0, 188, 194]],
            [[0, 158, 164], [0, 194, 200]],
            [[0, 224, 230], [0, 0, 0]],
            [[0, 230, 236], [0, 0, 0]],
        ]
        assert indices.tolist() == [0, 1, 0, 1]

    def test_a_mask_selects_what_is_read(self) -> None:
        scheme = TilingScheme.make_for_shape(Shape((2, 2, 3), 2), Shape((2, 2, 2, 3), 2))
        roi = np.array([[False, True], [False, True]])
        slices, ranges, _ = make_set(0, 4).get_read_ranges(0, 4, "u2", scheme, roi=roi)
        assert slices.tolist() == [[[0, 0, 0], [2, 2, 3]]]
        assert ranges.tolist() == [[[0, 12, 24], [0, 36, 48]]]

    def test_what_speeds_up_the_search_is_not_pickled(self) -> None:
        fileset = make_set(*range(201))
        size = len(pickle.dumps(fileset))
        fileset.get_for_range(150, 160)
        assert len(pickle.dumps(fileset)) == size
        assert len(pickle.loads(pickle.dumps(fileset)).get_for_range(150, 160)) == 11
