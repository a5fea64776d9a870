from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_REPORT = """
import json, sys
try:
    import resource
except ImportError:
    limit = None
else:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 128), hard))
import libertem.preload
if "resource" in sys.modules:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
print(json.dumps([limit, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[int] | None, list[str]]:
    """Open-file limits and loaded modules of a process that has imported the module."""
    folder: Path = tmp_path_factory.mktemp("broken")
    (folder / "torch.py").write_text("raise OSError('libcudart.so: cannot open shared object file')")
    script = folder / "report.py"
    script.write_text(_REPORT)
    done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    limit, modules = json.loads(done.stdout)
    return limit, modules


def test_slow_modules_are_loaded(report: tuple[list[int] | None, list[str]]) -> None:
    _, modules = report
    assert {"numba", "scipy.sparse", "sparse", "sparseconverter", "h5py", "hdf5plugin"} <= set(modules)


def test_an_optional_module_that_is_broken_does_no_harm(report: tuple[list[int] | None, list[str]]) -> None:
    _, modules = report
    assert "torch" not in modules
    assert "libertem.preload" in modules


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_as_many_files_may_be_opened_as_the_system_allows(
    report: tuple[list[int] | None, list[str]],
) -> None:
    limit, _ = report
    assert limit is not None
    soft, hard = limit
    assert soft == hard
