"""Readers of pictures and clips, whole and missing."""

import sys

import pytest

from lavis_evlgen.doctor import decoders
from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, examine


def test_all_that_are_installed_read():
    assert list(decoders.check_pictures()) == [(OK, "Pillow reads JPEG, PNG, WEBP, AVIF")]
    for check in (decoders.check_torchvision, decoders.check_opencv, decoders.check_av, decoders.check_decord):
        assert [each[0] for each in check()] == [OK]


@pytest.fixture
def replaced(tmp_path, monkeypatch):
    """Puts a package of one file before the installed one of that name."""

    def replace(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        for module in [each for each in sys.modules if each.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.syspath_prepend(str(tmp_path))

    return replace


def test_without_pyav_decord_reads(replaced):
    replaced("av", "raise ImportError('libavcodec.so.61: cannot open shared object file')")
    ((level, said),) = decoders.check_av()
    assert level == NOTE and "libavcodec.so.61" in said and "read by decord" in said
    ((level, said),) = decoders.check_decord()
    assert level == OK and "there is no clip to try it on" in said


def test_a_reader_that_reads_wrong_is_a_problem(replaced):
    replaced("decord", "class VideoReader(list):\n    def __init__(self, *_, **__): super().__init__([0] * 7)")
    (found,) = examine("decord", decoders.check_decord)
    assert found.level == PROBLEM and "decord finds 7 of 8 frames" in found.text
    replaced("cv2", "raise ImportError('numpy.core.multiarray failed to import')")
    (found,) = examine("OpenCV", decoders.check_opencv)
    assert found.level == PROBLEM and found.text.endswith("numpy.core.multiarray failed to import")
    assert "requirements.lock" in found.way_out
