"""Downloads: whole and verified, or not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from paretobit.data.download import cache_folder, fetch, progress_bar
from paretobit.errors import ParetoBitError

CONTENT = b"jets" * 1000


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "served").write_bytes(CONTENT)
    return (tmp_path / "served").as_uri()


def test_a_file_arrives_whole_and_progress_is_told(tmp_path: Path, url: str) -> None:
    told: list[tuple[int, int | None]] = []
    md5 = hashlib.md5(CONTENT).hexdigest().upper()
    target = fetch(url, tmp_path / "new" / "file", md5, lambda done, total: told.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert told[-1] == (4000, 4000)


def test_a_wrong_checksum_leaves_nothing_behind(tmp_path: Path, url: str) -> None:
    with pytest.raises(ParetoBitError, match=r"damaged.*expected 00"):
        fetch(url, tmp_path / "new" / "file", "00")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_failed_download_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ParetoBitError, match="failed"):
        fetch((tmp_path / "missing").as_uri(), target)
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_bar_writes_to_standard_error(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("jets") as progress:
        fetch(url, tmp_path / "file", progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert "jets" in err


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETOBIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PARETOBIT_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "paretobit"
