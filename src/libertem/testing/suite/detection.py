"""Detection: yes to files of its own, no to everything else, and never an error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from libertem.api import Context
from libertem.exceptions import DataSetException
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.framefile import PROBE_BYTES
from libertem.io.dataset.registry import filetypes, get_dataset_cls
from libertem.testing.suite.foreign import foreign_files
from libertem.testing.suite.reading import assert_delivered, read
from libertem.testing.suite.setup import SuiteSetup

__all__ = ["DetectionTests"]


class DetectionTests(SuiteSetup):
    """Tests of `DataSet.detect_params`, alone and through ``ctx.load("auto", ...)``."""

    def detect(self, path: Any) -> Any:
        """Ask the data set class, as the registry does."""
        return self.dataset_class().detect_params(path, InlineJobExecutor())

    def _skip_unless_detectable(self) -> None:
        if not self.detectable:
            pytest.skip("files of this format cannot be recognized")

    def test_own_files_are_detected(self, tmp_path: Path, ctx: Context, dtype: str) -> None:
        """Together with parameters that load all frames."""
        self._skip_unless_detectable()
        frames = self.make_frames(self.n_frames, dtype)
        kwargs = self.write_frames(tmp_path, frames)
        answer = self.detect(os.fspath(kwargs["path"]))
        assert answer, f"{kwargs['path']} was not recognized"
        ds = ctx.load(self.filetype, **answer["parameters"])
        assert_delivered(
            read(ds, dest_dtype=frames.dtype.newbyteorder("=")),
            frames.astype(frames.dtype.newbyteorder("=")),
            None,
            f"{ds!r} loaded with the parameters detected: {answer['parameters']}",
        )

    def test_detection_reads_little(self, tmp_path: Path) -> None:
        """Detection asks many types in a row."""
        self._skip_unless_detectable()
        kwargs = self.write_frames(tmp_path, self.make_large())
        before = io_counts()
        assert self.detect(os.fspath(kwargs["path"])), f"{kwargs['path']} was not recognized"
        n_bytes = (io_counts() - before).read_bytes
        assert n_bytes <= PROBE_BYTES, f"{n_bytes} bytes were read, expected at most {PROBE_BYTES}"

    def test_auto_loads_own_files(self, tmp_path: Path, ctx: Context) -> None:
        """Without naming the type."""
        self._skip_unless_detectable()
        if not isinstance(self.filetype, str):
            pytest.skip("only registered types can be detected")
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        for path in (os.fspath(kwargs["path"]), Path(kwargs["path"])):
            ds = ctx.load("auto", path=path, nav_shape=self.nav_shape)
            assert type(ds) is type(self.load(ctx, kwargs)), f"{path} was loaded as {type(ds).__name__}"
            assert_delivered(read(ds, dest_dtype="float64"), frames.astype("float64"), None, repr(ds))

    def test_no_other_type_claims_own_files(self, tmp_path: Path) -> None:
        """Whether it is asked before or after this one."""
        path = self.write_frames(tmp_path, self.make_frames(self.n_frames))["path"]
        for name in filetypes:
            try:
                other = get_dataset_cls(name)
                answer = other is not self.dataset_class() and other.detect_params(path, InlineJobExecutor())
            except (DataSetException, NotImplementedError):
                # It cannot be imported here, or recognizes no files at all.
                continue
            assert not answer, f"{path} was detected as {name}: {answer}"

    def test_foreign_files_are_not_detected(self, tmp_path: Path) -> None:
        """Not even under a name of this format."""
        self._skip_unless_detectable()
        path = Path(self.write_frames(tmp_path, self.make_frames(self.n_frames))["path"])
        for name, content in foreign_files().items():
            if name == self.filetype:
                continue
            for candidate in (path, tmp_path / f"{path.stem}.unknown", tmp_path / "plain"):
                candidate.write_bytes(content)
                answer = self.detect(os.fspath(candidate))
                assert not answer, f"{candidate.name} with the content '{name}' was detected: {answer}"

    def test_foreign_files_are_not_loaded(self, tmp_path: Path, ctx: Context) -> None:
        """But refused with an error of the library that names the file."""
        self._skip_unless_detectable()
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        path = Path(kwargs["path"])
        for name, content in foreign_files().items():
            if name == self.filetype:
                continue
            path.write_bytes(content)
            with pytest.raises(DataSetException) as err:
                raise AssertionError(f"content '{name}' was loaded as {self.load_quietly(ctx, kwargs)!r}")
            assert path.name in str(err.value), f"content '{name}': no file name in the error: {err.value}"

    def test_what_is_no_file_is_not_detected(self, tmp_path: Path) -> None:
        """Missing files, directories, and things that are no path at all."""
        self._skip_unless_detectable()
        suffix = Path(self.write_frames(tmp_path / "own", self.make_frames(self.n_frames))["path"]).suffix
        directory = tmp_path / f"directory{suffix}"
        directory.mkdir()
        missing = tmp_path / "missing"
        for path in (missing, missing.with_suffix(suffix), directory, "", "nul\0byte" + suffix):
            answer = self.detect(os.fspath(path))
            assert not answer, f"{str(path)!r} was detected: {answer}"
        for thing in (555, None, [1, 2], b"bytes"):
            answer = self.detect(thing)
            assert not answer, f"{thing!r} was detected: {answer}"
