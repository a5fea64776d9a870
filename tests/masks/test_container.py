from __future__ import annotations

import copy
import functools
import logging
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import numpy as np
import pytest
import scipy.sparse
import sparse
from hypothesis import given
from hypothesis import strategies as st

import libertem.common.container
from libertem.common import Shape, Slice, arrays
from libertem.masks import MaskContainer
from libertem.masks import container as module

RAMP = np.arange(16).reshape(4, 4)
KEY = Slice(origin=(5, 1, 0), shape=Shape((2, 3, 4), sig_dims=2))

FORMS = [
    (False, np.ndarray),
    (True, scipy.sparse.csr_matrix),
    ("scipy.sparse", scipy.sparse.csr_matrix),
    ("scipy.sparse.csr", scipy.sparse.csr_matrix),
    ("scipy.sparse.csc", scipy.sparse.csc_matrix),
    ("sparse.pydata", sparse.COO),
    ("sparse.pydata.GCXS", sparse.GCXS),
]


def ones() -> np.ndarray:
    return np.ones((4, 4))


def ramp() -> np.ndarray:
    return RAMP


def ramp_csr() -> Any:
    return scipy.sparse.csr_matrix(RAMP)


def ramp_coo() -> Any:
    return sparse.COO.from_numpy(RAMP)


def ramp_gcxs() -> Any:
    return sparse.GCXS.from_numpy(RAMP)


def refuse() -> Any:
    raise AssertionError("the factory was not to be called")


def large_stack(n: int, *, side: int) -> np.ndarray:
    return np.zeros((n, side, side), dtype=np.float32)


class TestParts:
    def test_the_pixels_of_the_region_become_one_axis(self) -> None:
        part = MaskContainer([ones, ramp]).get(KEY)
        assert part.shape == (12, 2)
        np.testing.assert_array_equal(part[:, 0], 1)
        np.testing.assert_array_equal(part[:, 1], np.arange(4, 16))

    def test_without_transposition_there_is_a_row_for_each_mask(self) -> None:
        part = MaskContainer([ones, ramp]).get(KEY, transpose=False)
        np.testing.assert_array_equal(part, [[1] * 12, range(4, 16)])

    @pytest.mark.parametrize("transpose", [True, False])
    @pytest.mark.parametrize(("use_sparse", "kind"), FORMS)
    def test_each_form_holds_the_same_numbers(self, use_sparse: Any, kind: type, transpose: bool) -> None:
        part = MaskContainer([ones, ramp], dtype="f4", use_sparse=use_sparse).get(KEY, transpose=transpose)
        expected = np.array([[1] * 12, range(4, 16)])
        assert type(part) is kind
        assert part.dtype == np.float32
        np.testing.assert_array_equal(arrays.to_dense(part), expected.T if transpose else expected)

    @pytest.mark.parametrize("made_with", [False, "scipy.sparse", "sparse.pydata"])
    @pytest.mark.parametrize(("asked_for", "kind"), FORMS)
    def test_each_call_may_ask_for_another_form(self, made_with: Any, asked_for: Any, kind: type) -> None:
        part = MaskContainer([ones, ramp], use_sparse=made_with).get(KEY, sparse_backend=asked_for)
        assert type(part) is kind
        np.testing.assert_array_equal(arrays.to_dense(part), np.array([[1] * 12, range(4, 16)]).T)

    @pytest.mark.parametrize("transpose", [True, False])
    @pytest.mark.parametrize("form", ["scipy.sparse.csr", "scipy.sparse.csc"])
    def test_scipy_matrices_are_canonical(self, form: Any, transpose: bool) -> None:
        rng = np.random.default_rng(1)
        stack = rng.random((7, 6, 5)) * (rng.random((7, 6, 5)) < 0.3)
        key = Slice((0, 1, 1), Shape((1, 4, 3), sig_dims=2))
        for factory in (lambda: stack, lambda: sparse.COO.from_numpy(stack)):
            part = MaskContainer(factory, use_sparse=form).get(key, transpose=transpose)
            fresh = type(part)((part.data, part.indices, part.indptr), shape=part.shape)
            assert fresh.has_canonical_format
            expected = stack[:, 1:5, 1:4].reshape(7, 12)
            assert part.nnz == np.count_nonzero(expected)
            tile = rng.random((part.shape[1], 3))
            np.testing.assert_allclose(part.dot(tile), (expected.T if transpose else expected) @ tile)

    @given(st.data())
    def test_parts_are_cut_as_numpy_cuts(self, data: st.DataObject) -> None:
        sig_shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
        origin = tuple(data.draw(st.integers(0, n)) for n in sig_shape)
        extents = tuple(data.draw(st.integers(0, n - o)) for n, o in zip(sig_shape, origin, strict=True))
        stack = (np.arange(3 * np.prod(sig_shape)) % 4).reshape((3, *sig_shape))
        key = Slice(origin, Shape(extents, sig_dims=len(sig_shape)))
        expected = stack[(slice(None), *key.get())].reshape((3, -1) if np.prod(extents) else (3, 0))
        for factory in (lambda: stack, lambda: sparse.COO.from_numpy(stack)):
            container = MaskContainer(factory)
            for form in (False, "scipy.sparse", "scipy.sparse.csc"):
                part = container.get(key, sparse_backend=form, transpose=False)
                np.testing.assert_array_equal(arrays.to_dense(part), expected)

    def test_the_navigation_part_is_ignored(self) -> None:
        container = MaskContainer([ones, ramp])
        elsewhere = Slice(origin=(0, 7, 1, 0), shape=Shape((3, 3, 3, 4), sig_dims=2))
        assert container.get(elsewhere) is container.get(KEY)
        assert container.get_for_sig_slice(KEY.sig) is container.get(KEY)

    def test_a_tiling_scheme_is_indexed(self) -> None:
        container = MaskContainer([ones, ramp])
        scheme = [Slice.from_shape((4, 4), sig_dims=2), KEY.sig]
        assert container.get_for_idx(scheme, 1, transpose=False) is container.get(KEY, transpose=False)

    def test_options_may_be_given_by_position_for_a_sig_slice(self) -> None:
        part = MaskContainer([ones, ramp]).get_for_sig_slice(KEY.sig, np.complex64, "scipy.sparse.csc", False)
        assert part.dtype == np.complex64
        assert part.shape == (2, 12)

    def test_the_dtype_may_be_given_per_call(self) -> None:
        assert MaskContainer([ones, ramp], dtype="f4").get(KEY, dtype=np.complex64).dtype == np.complex64

    def test_parts_are_in_native_byte_order(self) -> None:
        def swapped() -> np.ndarray:
            return RAMP.astype(RAMP.dtype.newbyteorder())

        container = MaskContainer([swapped])
        assert container.get(KEY).dtype.isnative
        assert container.get(KEY, dtype=">f4").dtype.isnative
        np.testing.assert_array_equal(container.get(KEY, sparse_backend=True).toarray()[:, 0], range(4, 16))

    @pytest.mark.parametrize("key", [0, (0, 1), np.s_[0:4], Shape((4, 4), sig_dims=2), None], ids=repr)
    def test_other_keys_are_type_errors(self, key: Any) -> None:
        with pytest.raises(TypeError, match="takes a Slice"):
            MaskContainer([ones]).get(key)

    @pytest.mark.parametrize(
        "key",
        [
            Slice((0, 2, 2), Shape((1, 4, 4), sig_dims=2)),
            Slice((0, -1, 0), Shape((1, 4, 4), sig_dims=2)),
            Slice((0, 0), Shape((1, 4), sig_dims=1)),
            Slice((0, 0, 0, 0), Shape((1, 4, 4, 4), sig_dims=3)),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("use_sparse", [False, True])
    def test_regions_that_the_masks_do_not_cover_are_refused(self, key: Slice, use_sparse: bool) -> None:
        with pytest.raises(ValueError, match="do not cover"):
            MaskContainer([ones], use_sparse=use_sparse).get(key)

    def test_a_single_mask_is_no_stack(self) -> None:
        with pytest.raises(ValueError, match="do not cover"):
            MaskContainer(ones).get(KEY)
        with pytest.raises(ValueError, match=r"\(n,\) \+ sig_shape"):
            _ = MaskContainer(lambda: np.ones(4)).computed_masks


class TestFactories:
    @pytest.mark.parametrize(
        "factories",
        [
            [ones, ramp],
            (ones, ramp),
            lambda: np.stack([ones(), RAMP]),
            lambda: [ones(), RAMP],
            lambda: (mask for mask in (ones(), RAMP)),
            lambda: sparse.COO.from_numpy(np.stack([ones(), RAMP])),
            lambda: sparse.GCXS.from_numpy(np.stack([ones(), RAMP])),
            [ones, ramp_csr],
            [lambda: sparse.COO.from_numpy(np.ones((4, 4))), ramp_gcxs],
            [lambda: np.ones((4, 4)).tolist(), lambda: np.asmatrix(RAMP)],
        ],
    )
    @pytest.mark.parametrize("use_sparse", [None, False, True])
    @pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
    def test_they_may_return_any_kind_of_array(self, factories: Any, use_sparse: Any) -> None:
        container = MaskContainer(factories, use_sparse=use_sparse)
        assert len(container) == 2
        assert container.computed_masks.shape == (2, 4, 4)
        np.testing.assert_array_equal(arrays.to_dense(container.computed_masks), [ones(), RAMP])

    def test_the_stack_has_the_common_dtype(self) -> None:
        container = MaskContainer([lambda: np.eye(4, dtype=np.uint8), lambda: np.eye(4, dtype=np.int16)])
        assert container.dtype == container.computed_masks.dtype == np.int16

    def test_the_whole_stack_keeps_its_dtype(self) -> None:
        container = MaskContainer([ones], dtype=np.float32)
        assert container.dtype == np.float32
        assert container.computed_masks.dtype == np.float64

    def test_they_run_once(self) -> None:
        calls = []
        container = MaskContainer(lambda: calls.append(1) or np.ones((2, 4, 4)))
        container.get(KEY), container.get(KEY, transpose=False), container.dtype, len(container)
        assert len(calls) == 1

    def test_they_do_not_run_for_what_is_known_without_them(self) -> None:
        container = MaskContainer(refuse, dtype="f4", use_sparse=True, count=3)
        assert (len(container), container.dtype, container.use_sparse) == (3, np.float32, "scipy.sparse")
        assert len(MaskContainer([refuse, refuse])) == 2
        assert MaskContainer([refuse], use_sparse=False).use_sparse is False

    def test_count_comes_first(self) -> None:
        assert len(MaskContainer([ones], count=3)) == 3

    def test_sparse_masks_that_are_not_zero_elsewhere_are_applied_in_full(self) -> None:
        filled = sparse.COO(np.array([[1], [1]]), np.array([5.0]), shape=(4, 4), fill_value=2.0)
        part = MaskContainer([lambda: filled]).get(KEY)
        np.testing.assert_array_equal(part.toarray()[:, 0], [2, 5, *[2] * 10])

    def test_masks_of_different_shapes_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"share one shape, found .*\(3, 3\), \(4, 4\)"):
            _ = MaskContainer([ones, lambda: np.ones((3, 3))]).computed_masks

    @pytest.mark.parametrize(
        "factories",
        [5, [5], [ones, RAMP], np.ones((2, 4, 4))],
        ids=["number", "list of a number", "array among functions", "array"],
    )
    def test_what_cannot_be_called_is_refused(self, factories: Any) -> None:
        with pytest.raises(TypeError, match="callable"):
            MaskContainer(factories)

    def test_no_factories_are_refused(self) -> None:
        with pytest.raises(ValueError, match="empty"):
            MaskContainer([])

    def test_a_large_factory_is_warned_about_once(self, caplog: pytest.LogCaptureFixture) -> None:
        factory = functools.partial(np.asarray, np.zeros((1, 300, 500)))
        with caplog.at_level(logging.WARNING, logger=module.__name__):
            MaskContainer(factory)
            MaskContainer(factory)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "pickles to more than 1048576 bytes" in caplog.text

    def test_small_and_unpicklable_factories_raise_no_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        lock = threading.Lock()
        with caplog.at_level(logging.WARNING, logger=module.__name__):
            MaskContainer([ones, functools.partial(large_stack, 2, side=1000)])
            MaskContainer(lambda: (lock, np.ones((2, 4, 4)))[1]).get(KEY)
        assert not caplog.records


class TestForms:
    @pytest.mark.parametrize(
        ("factories", "is_sparse"),
        [
            ([ramp_csr, ramp_coo, ramp_gcxs], True),
            ([ramp_csr, ramp], False),
            ([ones], False),
            (lambda: sparse.stack([ramp_coo(), ramp_coo()]), True),
            (lambda: np.ones((2, 4, 4)), False),
        ],
    )
    def test_by_default_parts_are_sparse_if_all_masks_are(self, factories: Any, is_sparse: bool) -> None:
        container = MaskContainer(factories)
        assert container.use_sparse == ("scipy.sparse" if is_sparse else False)
        assert isinstance(container.computed_masks, sparse.COO if is_sparse else np.ndarray)
        assert isinstance(container.get(KEY), scipy.sparse.csr_matrix if is_sparse else np.ndarray)

    def test_the_format_for_true_can_be_chosen(self) -> None:
        assert MaskContainer([ones], use_sparse=True, default_sparse="sparse.pydata").use_sparse == (
            "sparse.pydata"
        )
        assert type(MaskContainer([ramp_coo], default_sparse="scipy.sparse.csc").get(KEY)) is (
            scipy.sparse.csc_matrix
        )

    @pytest.mark.parametrize("value", ["scipy", "numpy", 1, 0], ids=repr)
    def test_unknown_formats_are_refused(self, value: Any) -> None:
        with pytest.raises(ValueError, match=f"use_sparse not an allowed value: {value}"):
            MaskContainer([ones], use_sparse=value)
        with pytest.raises(ValueError, match="sparse_backend not an allowed value"):
            MaskContainer([ones]).get(KEY, sparse_backend=value)
        with pytest.raises(ValueError, match="default_sparse not an allowed value"):
            MaskContainer([ones], default_sparse=value)

    @pytest.mark.parametrize("backend", [None, "numpy", "cuda"])
    def test_parts_for_numpy_and_cuda_workers_are_numpy_arrays(self, backend: str | None) -> None:
        assert type(MaskContainer([ones], backend=backend).get(KEY)) is np.ndarray
        assert type(MaskContainer([ones]).get(KEY, backend=backend)) is np.ndarray

    def test_unknown_backends_are_refused(self) -> None:
        with pytest.raises(ValueError, match="'torch'"):
            MaskContainer([ones], backend="torch")
        with pytest.raises(ValueError, match="'torch'"):
            MaskContainer([ones]).get(KEY, backend="torch")

    def test_formats_that_cupy_lacks_are_refused(self) -> None:
        with pytest.raises(ValueError, match="not available with CuPy"):
            MaskContainer([ones], use_sparse="sparse.pydata", backend="cupy").get(KEY)

    @pytest.mark.parametrize("use_sparse", [False, "scipy.sparse.csr", "scipy.sparse.csc"])
    def test_parts_for_cupy_lie_on_the_gpu(self, use_sparse: Any) -> None:
        cupy = pytest.importorskip("cupy", reason="needs CuPy")
        part = MaskContainer([ones, ramp], use_sparse=use_sparse).get(KEY, backend="cupy")
        assert type(part).__module__.startswith("cupy")
        dense = part.toarray() if use_sparse else part
        np.testing.assert_array_equal(cupy.asnumpy(dense), np.array([[1] * 12, range(4, 16)]).T)


class TestCache:
    @pytest.mark.parametrize(("use_sparse", "kind"), FORMS)
    def test_the_same_request_gives_the_same_object(self, use_sparse: Any, kind: type) -> None:
        container = MaskContainer([ones, ramp])
        parts = [container.get(KEY, sparse_backend=form, transpose=t) for form, _ in FORMS for t in (0, 1)]
        again = container.get(KEY, sparse_backend=use_sparse)
        assert type(again) is kind
        assert any(again is part for part in parts)

    def test_a_whole_tiling_scheme_stays_in_the_cache(self) -> None:
        container = MaskContainer(functools.partial(large_stack, 4, side=512), use_sparse=False)
        rows = list(Slice.from_shape((512, 512), sig_dims=2).subslices((4, 512)))
        first = [container.get(row) for row in rows]
        assert all(container.get(row) is part for row, part in zip(rows, first, strict=True))

    def test_it_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CACHED_ELEMENTS", 0)
        container = MaskContainer(functools.partial(large_stack, 2, side=64))
        limit = module.CACHED_STACKS * 2 * 64 * 64
        for start in range(40):
            key = Slice((start, 0), Shape((24, 64), sig_dims=2))
            container.get(key)
            container.get(key, transpose=False)
            held = sum(part.size for part in container._cache.values())
            assert held <= container._cached_elements <= limit

    def test_what_was_used_last_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CACHED_ELEMENTS", 0)
        container = MaskContainer(functools.partial(large_stack, 2, side=64))
        favourite = Slice((0, 0), Shape((1, 64), sig_dims=2))
        part = container.get(favourite)
        for start in range(40):
            container.get(Slice((start, 0), Shape((24, 64), sig_dims=2)))
            assert container.get(favourite) is part

    def test_threads_share_one_object_and_one_call_of_the_factory(self) -> None:
        calls = []
        barrier = threading.Barrier(4)

        def factory() -> np.ndarray:
            calls.append(1)
            return np.ones((2, 4, 4))

        container = MaskContainer(factory)

        def work(_: int) -> Any:
            barrier.wait()
            return container.get(KEY)

        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(work, range(4)))
        assert all(part is parts[0] for part in parts)
        assert len(calls) == 1


class TestTransport:
    def test_pickling_leaves_the_caches_behind(self) -> None:
        container = MaskContainer(functools.partial(large_stack, 4, side=256), dtype="f4")
        container.get(Slice.from_shape((256, 256), sig_dims=2))
        raw = pickle.dumps(container)
        assert len(raw) < 2000
        other = pickle.loads(raw)
        assert other.get(Slice.from_shape((256, 256), sig_dims=2)).shape == (65536, 4)

    @pytest.mark.parametrize("use_sparse", [None, False, "sparse.pydata.GCXS"])
    def test_a_copy_hands_out_the_same(self, use_sparse: Any) -> None:
        container = MaskContainer([ones, ramp], dtype="c8", use_sparse=use_sparse, count=2, backend="numpy")
        container.get(KEY)
        copies = (pickle.loads(cloudpickle.dumps(container)), copy.copy(container), copy.deepcopy(container))
        for other in copies:
            part = other.get(KEY)
            assert part is not container.get(KEY)
            assert type(part) is type(container.get(KEY))
            assert (part.dtype, len(other), other.use_sparse) == (np.complex64, 2, container.use_sparse)
            np.testing.assert_array_equal(arrays.to_dense(part), arrays.to_dense(container.get(KEY)))


def test_the_historic_path_hands_on_the_same_class() -> None:
    assert libertem.common.container.MaskContainer is MaskContainer


def test_dense_masks_load_no_sparse_package() -> None:
    script = """
import sys
import numpy as np
from libertem.common import Shape, Slice
from libertem.common.container import MaskContainer
container = MaskContainer([lambda: np.ones((4, 4))], dtype=np.float32)
container.get(Slice((0, 0, 0), Shape((1, 2, 4), sig_dims=2))), len(container), container.dtype
loaded = {"scipy", "sparse", "sparseconverter", "numba"} & set(sys.modules)
sys.exit(f"loaded {sorted(loaded)}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
