"""Downloads from a server on this machine: whole or not at all, resumed, checked."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import md5, sha256
from pathlib import Path

import numpy as np
import pytest
from file_server import Served, serving

from fisherkit.errors import RunRefused
from fisherkit.images.download import DownloadFailed, fetch
from fisherkit.images.releases import Download
from fisherkit.storage import lock

DATA = np.random.default_rng(0).bytes(1_000_000)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Served]:
    with serving({"file.bin": DATA}) as served:
        yield served


def official(server: Served) -> Download:
    return Download(f"{server.url}file.bin", "set/file.bin", len(DATA), f"sha256:{sha256(DATA).hexdigest()}")


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (folder / "set").iterdir() if path.name != ".lock"}


def test_whole_file(server: Served, tmp_path: Path) -> None:
    seen: list[int] = []
    assert fetch(official(server), tmp_path, progress=lambda _, here: seen.append(here))
    assert (tmp_path / "set" / "file.bin").read_bytes() == DATA
    assert files(tmp_path) == {"file.bin": len(DATA)}
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
    assert server.requests == [("file.bin", None)]


def test_md5_is_enough_where_nothing_else_was_published(server: Served, tmp_path: Path) -> None:
    assert fetch(replace(official(server), checksum=f"md5:{md5(DATA).hexdigest()}"), tmp_path)


def test_what_is_there_is_not_fetched_again(server: Served, tmp_path: Path) -> None:
    fetch(official(server), tmp_path)
    assert not fetch(official(server), tmp_path)
    assert len(server.requests) == 1


def test_interrupted_download_goes_on_where_it_stopped(server: Served, tmp_path: Path) -> None:
    server.break_after = 300_000
    for here in (300_000, 600_000):
        with pytest.raises(DownloadFailed, match=rf"the connection ended after {here:,} of 1,000,000 bytes"):
            fetch(official(server), tmp_path)
        assert files(tmp_path) == {"file.bin.part": here}
    server.break_after = None
    assert fetch(official(server), tmp_path)
    assert (tmp_path / "set" / "file.bin").read_bytes() == DATA
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=600000-"]
    assert files(tmp_path) == {"file.bin": len(DATA)}


def test_server_without_ranges_sends_it_anew(server: Served, tmp_path: Path) -> None:
    server.ranges, server.break_after = False, 700_000
    with pytest.raises(DownloadFailed):
        fetch(official(server), tmp_path)
    server.break_after = None
    assert fetch(official(server), tmp_path)
    assert (tmp_path / "set" / "file.bin").read_bytes() == DATA


def part(folder: Path, data: bytes) -> None:
    (folder / "set").mkdir(exist_ok=True)
    (folder / "set" / "file.bin.part").write_bytes(data)


def test_finished_part_is_only_checked(server: Served, tmp_path: Path) -> None:
    part(tmp_path, DATA)
    assert fetch(official(server), tmp_path)
    assert server.requests == []
    assert files(tmp_path) == {"file.bin": len(DATA)}


def test_part_that_is_too_long_is_dropped(server: Served, tmp_path: Path) -> None:
    part(tmp_path, DATA + b"x")
    assert fetch(official(server), tmp_path)
    assert (tmp_path / "set" / "file.bin").read_bytes() == DATA


def test_part_of_another_file_fails_the_check_and_is_removed(server: Served, tmp_path: Path) -> None:
    part(tmp_path, bytes(1000))
    with pytest.raises(DownloadFailed, match="the 1,000,000 bytes that came have another checksum; they were removed"):
        fetch(official(server), tmp_path)
    assert files(tmp_path) == {}
    assert fetch(official(server), tmp_path)


def test_wrong_file_on_the_server(server: Served, tmp_path: Path) -> None:
    server.files["file.bin"] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(DownloadFailed, match="another checksum"):
        fetch(official(server), tmp_path)
    assert files(tmp_path) == {}


def test_server_that_sends_too_much(server: Served, tmp_path: Path) -> None:
    server.files["file.bin"] = DATA * 3
    with pytest.raises(DownloadFailed, match="the server sends more than 1,000,000 bytes"):
        fetch(official(server), tmp_path)
    assert sum(files(tmp_path).values()) <= len(DATA)


def test_server_that_has_less_than_the_part(server: Served, tmp_path: Path) -> None:
    part(tmp_path, DATA[:500_000])
    server.files["file.bin"] = DATA[:400_000]
    with pytest.raises(DownloadFailed, match="the connection ended after 400,000 of 1,000,000 bytes"):
        fetch(official(server), tmp_path)
    assert [wanted for _, wanted in server.requests] == ["bytes=500000-", None]


def test_server_that_answers_another_range(server: Served, tmp_path: Path) -> None:
    part(tmp_path, DATA[:1000])
    server.shift = 7
    with pytest.raises(DownloadFailed, match="another part of the file"):
        fetch(official(server), tmp_path)
    assert files(tmp_path) == {"file.bin.part": 1000}


def test_missing_on_the_server(server: Served, tmp_path: Path) -> None:
    del server.files["file.bin"]
    with pytest.raises(DownloadFailed, match=rf"could not fetch {server.url}file.bin: HTTP 404 Not Found\."):
        fetch(official(server), tmp_path)
    assert files(tmp_path) == {}


def test_no_server(tmp_path: Path) -> None:
    with serving({}) as gone:
        download = official(gone)
    with pytest.raises(DownloadFailed, match="Connection refused"):
        fetch(download, tmp_path)


def test_full_disk_is_named_and_the_part_stays(server: Served, tmp_path: Path) -> None:
    import errno

    part(tmp_path, DATA[:1000])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DownloadFailed, match="No space left on device"):
        fetch(official(server), tmp_path, progress=full)
    assert "file.bin.part" in files(tmp_path)


def test_other_file_of_the_name_is_left_alone(server: Served, tmp_path: Path) -> None:
    path = tmp_path / "set" / "file.bin"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="is there already, with another checksum"):
        fetch(official(server), tmp_path)
    assert path.read_bytes() == b"mine"
    assert server.requests == []


def test_two_at_once_are_refused(server: Served, tmp_path: Path) -> None:
    with lock(tmp_path / "set"), pytest.raises(RunRefused, match="is in use by process"):
        fetch(official(server), tmp_path)
