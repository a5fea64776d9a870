"""Files that are missing, cut off or damaged: an error, or what is left of them, but never wrong pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.dataset import DataSet
from libertem.testing.suite.reading import assert_delivered, assert_same_pixels, read
from libertem.testing.suite.setup import SuiteSetup
from libertem.udf.sum import SumUDF

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["DamageTests"]

WORDS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
"""What damaged headers hold: no, negative and very large numbers in both byte orders."""


class DamageTests(SuiteSetup):
    """Tests of errors about files."""

    def _damages(self, size: int) -> Iterator[tuple[int, bytes]]:
        """Places in the header and the words to put there. Most headers have their numbers at the start."""
        yield from ((start, word) for start in range(0, min(size, 256), 4) for word in WORDS)
        yield from ((start, WORDS[0]) for start in range(256, min(size, 1024), 16))

    def _cuts(self, size: int, frame_bytes: int) -> list[int]:
        """Sizes to truncate a file to: in the header, within a frame, and just before the end."""
        wanted = {0, 1, 7, 64, 256, 512, 1024, size // 4, size // 2, 3 * size // 4}
        wanted |= {size - frame_bytes - 1, size - frame_bytes // 2, size - 1}
        return sorted(cut for cut in wanted if 0 <= cut < size)

    def _read_what_is_left(self, ds: DataSet, frames: npt.NDArray[Any], what: str) -> None:
        delivered = read(ds, dest_dtype="float64")
        whole = delivered.counts.reshape(delivered.counts.shape[0], -1)
        assert whole.max(initial=0) <= 1, f"{what}: frames are repeated"
        assert (whole.min(axis=1) == whole.max(axis=1)).all(), f"{what}: parts of frames are missing"
        present = np.flatnonzero(whole[:, 0])
        assert present.max(initial=-1) < frames.shape[0], f"{what}: more frames than were written"
        assert_same_pixels(delivered.pixels[present], frames[present].astype("float64"), what)

    def test_truncated_files_never_give_other_pixels(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """They are refused, or the frames that are left are read."""
        frames = self.make_frames(self.n_frames)
        size = self.main_file(self.write_frames(tmp_path / "whole", frames)).stat().st_size
        for cut in self._cuts(size, frames[0].nbytes):
            kwargs = self.write_frames(tmp_path / str(cut), frames)
            os.truncate(self.main_file(kwargs), cut)
            self._read_damaged(ctx, kwargs, frames, f"file truncated from {size} to {cut} bytes", io_backend)

    def _read_damaged(
        self,
        ctx: Context,
        kwargs: dict[str, Any],
        frames: npt.NDArray[Any],
        what: str,
        io_backend: str | None,
    ) -> None:
        shapes = [self.nav_shape, None] if self.has_nav_shape else [self.nav_shape]
        for nav_shape in shapes:
            try:
                ds = self.load_quietly(ctx, kwargs, nav_shape=nav_shape, io_backend=io_backend)
                self._read_what_is_left(ds, frames, f"{what}, {ds!r}")
            except DataSetException:
                continue

    def test_bytes_behind_the_end_are_never_pixels(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """They are ignored, or the file is refused."""
        frames = self.make_frames(self.n_frames)
        for n_bytes in (1, 8, 600):
            kwargs = self.write_frames(tmp_path / str(n_bytes), frames)
            with self.main_file(kwargs).open("ab") as file:
                file.write(b"\xaa" * n_bytes)
            try:
                ds = self.load_quietly(ctx, kwargs, io_backend=io_backend)
            except DataSetException:
                continue
            what = f"{ds!r} of a file with {n_bytes} bytes too many"
            assert_delivered(read(ds, dest_dtype="float64"), frames.astype("float64"), None, what)

    def test_damaged_headers_raise_errors_of_the_library(self, tmp_path: Path, ctx: Context) -> None:
        """Whatever numbers they then hold; loading may also succeed."""
        if not self.detectable:
            pytest.skip("files that cannot be recognized have no header to be damaged")
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        path = Path(kwargs["path"])
        intact = path.read_bytes()
        for start, word in self._damages(len(intact)):
            path.write_bytes(intact[:start] + word[: len(intact) - start] + intact[start + 4 :])
            try:
                self.load_quietly(ctx, kwargs)
            except DataSetException:
                continue
            except Exception as err:
                raise AssertionError(f"bytes {start} to {start + 4} as {word!r} raise {err!r}") from err

    def test_a_missing_file_is_reported_as_such(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """Both as an error of the library and as `FileNotFoundError`, with its path."""
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        missing = tmp_path / "gone" / Path(kwargs["path"]).name
        with pytest.raises(FileNotFoundError) as err:
            self.load(ctx, {**kwargs, "path": os.fspath(missing)}, io_backend=io_backend)
        assert isinstance(err.value, DataSetException), f"{err.value!r} is no DataSetException"
        assert str(missing) in str(err.value), f"the path {missing} is missing in: {err.value}"

    def test_an_empty_file_is_refused(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """Be it the file to open or the one with the pixels."""
        frames = self.make_frames(self.n_frames)
        for number, which in enumerate((lambda kwargs: Path(kwargs["path"]), self.main_file)):
            kwargs = self.write_frames(tmp_path / str(number), frames)
            which(kwargs).write_bytes(b"")
            with pytest.raises(DataSetException):
                self.load(ctx, kwargs, io_backend=io_backend)

    def test_a_directory_is_refused(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """With an error of the library."""
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        directory = tmp_path / "sub" / Path(kwargs["path"]).name
        directory.mkdir(parents=True)
        with pytest.raises(DataSetException):
            self.load(ctx, {**kwargs, "path": os.fspath(directory)}, io_backend=io_backend)

    def test_a_file_that_shrinks_after_loading_raises(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """Instead of crashing the process, or showing zeros."""
        frames = self.make_frames(self.n_frames)
        size = self.main_file(self.write_frames(tmp_path / "whole", frames)).stat().st_size
        for left in (0, size // 3, size - frames[0].nbytes):
            kwargs = self.write_frames(tmp_path / str(left), frames)
            ds = self.load(ctx, kwargs, io_backend=io_backend)
            os.truncate(self.main_file(kwargs), left)
            with pytest.raises(DataSetException):
                read(ds, dest_dtype="float64")
            with pytest.raises(DataSetException):
                ctx.run_udf(dataset=ds, udf=SumUDF())

    def test_a_file_that_vanishes_after_loading_raises(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """An error of the library."""
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        ds = self.load(ctx, kwargs, io_backend=io_backend)
        self.main_file(kwargs).unlink()
        with pytest.raises(DataSetException):
            read(ds)
