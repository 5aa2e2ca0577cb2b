"""`fisherkit data` as a user meets it: what is printed, and the exit status."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import small_releases as small
from file_server import Served, serving
from fisherkit_cli.main import main

from fisherkit.images import catalogue, releases

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Call the command line with its real error handling; the cache folder is an empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FISHERKIT_DATA", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fisherkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return int(exited.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> small.Release:
    """A small MNIST, in the catalogue in place of the real one."""
    made = small.idx_release("mnist")
    others = tuple(source for source in catalogue.CATALOGUE if source.name != "mnist")
    monkeypatch.setattr(catalogue, "CATALOGUE", (*others, made.source))
    return made


@pytest.fixture
def server(release: small.Release, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that has the files of the small MNIST, and a catalogue that points there."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving({f"{name}.gz": data for name, data in release.files.items()}) as served:
        downloads = tuple(
            releases.Download(f"{served.url}{name}", f"mnist/{name}", len(data), f"sha256:{sha256(data).hexdigest()}")
            for name, data in served.files.items()
        )
        source = replace(release.source, downloads=downloads)
        others = tuple(other for other in catalogue.CATALOGUE if other.name != "mnist")
        monkeypatch.setattr(catalogue, "CATALOGUE", (*others, source))
        yield served


def test_list_names_every_set_and_where_it_is(run: Run, release: small.Release, tmp_path: Path) -> None:
    folder = release.folder(tmp_path)
    status, out, _ = run("data", "list", "--data-dir", tmp_path)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == ["NAME", "CLASSES", "TRAIN", "TEST", "WHERE"]
    assert lines[1].split() == ["fashion-mini", "10", "5,000", "1,000", "in", "the", "package"]
    assert ["cifar100", "100", "50,000", "10,000", "not", "found"] in [line.split() for line in lines]
    assert ["mnist", "10", "60,000", "10,000", str(folder)] in [line.split() for line in lines]
    assert lines[-1] == f"Searched: {tmp_path}. Get one with `fisherkit data fetch NAME`."


def test_list_without_a_folder_searches_the_named_one_and_the_cache(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FISHERKIT_DATA", str(tmp_path / "named"))
    _, out, _ = run("data", "list")
    assert f"Searched: {tmp_path / 'named'}, {tmp_path / 'cache' / 'fisherkit'}." in out


def test_check_of_official_files(run: Run, release: small.Release, tmp_path: Path) -> None:
    folder = release.folder(tmp_path)
    status, out, _ = run("data", "check", "mnist", "--data-dir", tmp_path)
    assert status == 0
    assert f"read from  {folder} (idx)" in out
    assert "train      24 images of 1 x 32 x 32" in out
    assert "classes    10: 0, 1, 2" in out
    assert "mean, std  0.1000; 0.2752" in out
    assert "checksums  right: these are the official images" in out


def test_check_of_other_files_gives_the_notice(run: Run, release: small.Release, tmp_path: Path) -> None:
    path = release.folder(tmp_path) / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    status, out, _ = run("data", "check", "mnist", "--data-dir", tmp_path)
    assert status == 0
    assert "checksums  differ\nNotice: mnist test: t10k-images-idx3-ubyte in" in out


def test_check_of_a_damaged_file(run: Run, release: small.Release, tmp_path: Path) -> None:
    path = release.folder(tmp_path) / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    status, _, err = run("data", "check", "mnist", "--data-dir", tmp_path)
    assert status == 65
    assert err.startswith(f"fisherkit: {path}: the size must be 18,832 bytes; it is 18,831.")


def test_check_of_the_embedded_set(run: Run) -> None:
    status, out, _ = run("data", "check", "fashion-mini")
    assert status == 0
    assert "train      5,000 images of 1 x 32 x 32; 500 of every class" in out
    assert "checksums  none: part of the package" in out


def test_check_of_a_missing_set(run: Run, tmp_path: Path) -> None:
    status, _, err = run("data", "check", "cifar10")
    assert status == 2
    assert f"{tmp_path / 'cache' / 'fisherkit'} (there is no such folder)" in err
    assert "`fisherkit data fetch cifar10`" in err


@pytest.mark.parametrize("command", ["check", "fetch"])
def test_unknown_name(command: str, run: Run) -> None:
    status, _, err = run("data", command, "cifar-10")
    assert status == 2
    assert err == (
        f"fisherkit: The image set must be one of {', '.join(catalogue.SOURCES)}; got 'cifar-10'. "
        "Did you mean 'cifar10'?\n"
    )


def test_fetch_then_check(run: Run, server: Served, tmp_path: Path) -> None:
    status, out, err = run("data", "fetch", "mnist", "--data-dir", tmp_path)
    assert status == 0
    assert out.count("fetched, checksum right") == 4
    assert out.endswith(f"mnist is in {tmp_path}. Use it with `fisherkit track --data mnist`.\n")
    assert err.count("Fetching http://127.0.0.1") == 4  # one line a file where there is no terminal
    status, out, _ = run("data", "check", "mnist", "--data-dir", tmp_path)
    assert "checksums  right" in out
    status, out, _ = run("data", "fetch", "mnist", "--data-dir", tmp_path)
    assert (status, len(server.requests)) == (0, 4)
    assert out.startswith(f"mnist is there already: {tmp_path / 'mnist'}.")


def test_fetch_goes_to_the_cache_by_default(run: Run, server: Served, tmp_path: Path) -> None:
    assert run("data", "fetch", "mnist")[0] == 0
    assert (tmp_path / "cache" / "fisherkit" / "mnist" / "train-images-idx3-ubyte.gz").is_file()


def test_fetch_without_a_network_says_what_to_put_where(run: Run, server: Served, tmp_path: Path) -> None:
    first = "train-images-idx3-ubyte.gz"
    missing = server.files.pop("train-labels-idx1-ubyte.gz")
    status, out, err = run("data", "fetch", "mnist", "--data-dir", tmp_path)
    assert status == 1
    assert f"{first}: fetched" in out
    assert f"Error: could not fetch {server.url}train-labels-idx1-ubyte.gz: HTTP 404 Not Found.\n" in err
    assert "Run the same command again: it goes on where it stopped." in err
    assert f"{server.url}{first}\n" not in err  # that one is here
    for name in ("train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        assert f"  {server.url}{name}\n    -> {tmp_path / 'mnist' / name}\n" in err
    assert f"{len(missing):,} bytes, sha256:{sha256(missing).hexdigest()}" in err


def test_fetch_of_the_embedded_set(run: Run) -> None:
    assert run("data", "fetch", "fashion-mini")[:2] == (
        0,
        "fashion-mini is in the package; there is nothing to fetch.\n",
    )


def test_help_of_the_group(run: Run) -> None:
    status, out, _ = run("data", "--help")
    assert status == 0
    assert [word in out for word in ("list", "fetch", "check")] == [True] * 3
