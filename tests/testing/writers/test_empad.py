"""The EMPAD writer against the layout that the detector is known to write."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from libertem.testing.writers.empad import write_empad


def test_frames_lie_where_the_format_says(tmp_path: Path) -> None:
    frames = np.zeros((2, 128, 128), dtype=np.float32)
    frames[0, 0, 0] = 1.5
    frames[0, 127, 127] = 2.5
    frames[1, 0, 1] = 3.5
    write_empad(tmp_path, [frames], (1, 2))
    raw = (tmp_path / "scan_x2_y1.raw").read_bytes()
    assert len(raw) == 133120
    assert raw[:4] == b"\x00\x00\xc0\x3f"
    assert raw[65532:65536] == b"\x00\x00\x20\x40"
    assert raw[66564:66568] == b"\x00\x00\x60\x40"
    assert raw[65536:65540] == b"\x00\x00\x10\xc1"


def test_the_xml_file_describes_the_scan_as_version_1_2_2_does(tmp_path: Path) -> None:
    path = write_empad(tmp_path, np.zeros((3, 2, 128, 128)), (3, 2), name="acquisition_7")
    root = ET.parse(path).getroot()
    assert (root.tag, root.get("name"), path.name) == ("root", "acquisition_7", "acquisition_7.xml")
    raw_file = root.find("raw_file")
    assert raw_file is not None
    assert raw_file.get("filename") == "scan_x2_y3.raw"
    assert root.findtext("software_version") == "1.2.2"
    for mode in ("acquire", "search"):
        block = root.find(f"scan_parameters[@mode='{mode}']")
        assert block is not None
        assert (block.findtext("scan_resolution_y"), block.findtext("scan_resolution_x")) == ("3", "2")
    assert root.find("type") is None
    assert root.find("pix_x") is None


def test_slabs_of_any_size_give_the_same_file(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(size=(6, 128, 128))
    write_empad(tmp_path / "whole", [frames], (2, 3))
    write_empad(tmp_path / "parts", [frames[:1], frames[1:5], frames[5:]], (2, 3))
    whole, parts = ((tmp_path / folder / "scan_x3_y2.raw").read_bytes() for folder in ("whole", "parts"))
    assert whole == parts


def test_a_wrong_number_of_frames_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found 5 frames, expected 6"):
        write_empad(tmp_path, [np.zeros((5, 128, 128))], (2, 3))
    assert list(tmp_path.iterdir()) == []
