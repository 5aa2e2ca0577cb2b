"""Fetches the files of an image set: resumable, checked, put in place only when whole.

pooch checks the checksum and renames; `ResumingDownloader` is the part that it has not: it goes on with a
`<name>.part` file by an HTTP range request.
"""

import http.client
import os
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from fisherkit.storage import lock

from .releases import Download

Progress = Callable[[Download, int], None]  # called with the number of bytes that are here
_CHUNK = 1 << 18
_TIMEOUT_S = 30.0


class DownloadFailed(Exception):  # noqa: N818  (a state of the network, not of the program)
    """A file could not be fetched; the message names the address and the reason."""

    def __init__(self, download: Download, target: Path, reason: str) -> None:
        self.download, self.target, self.reason = download, target, reason
        super().__init__(download, target, reason)

    def __str__(self) -> str:
        return f"could not fetch {self.download.url}: {self.reason}"


def fetch(download: Download, folder: Path, *, progress: Progress = lambda download, here: None) -> bool:
    """Put the file into the data folder; False if it was there already.

    Raises:
        DownloadFailed: The network or the server failed, or what came is not the official file.
        ValueError: Another file has the name; it is left alone.
        RunRefused: Another process fetches into this folder.
    """
    target = folder / download.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock(target.parent):
        if target.exists():
            _check_present(download, target)
            return False
        pooch = _pooch()
        pooch.get_logger().setLevel("ERROR")  # printing is the command line's
        downloader = ResumingDownloader(download, target, progress)
        try:
            pooch.retrieve(download.url, download.checksum, target.name, path=target.parent, downloader=downloader)
        except ValueError as error:  # pooch's word for another checksum; it has removed the file
            reason = f"the {download.size:,} bytes that came have another checksum; they were removed."
            raise DownloadFailed(download, target, reason) from error
    return True


def _check_present(download: Download, target: Path) -> None:
    algorithm, _, expected = download.checksum.partition(":")
    if not target.is_file() or _pooch().file_hash(str(target), alg=algorithm) != expected:
        raise ValueError(
            f"{target} is there already, with another checksum than the official file. Remove it, or choose "
            "another folder with --data-dir."
        )


def _pooch() -> Any:
    """The module, imported only when something is fetched; its types do not fit its use."""
    return import_module("pooch")


@dataclass(frozen=True)
class ResumingDownloader:
    """What pooch calls as `downloader(url, file, pooch)`: completes the `.part` file, then renames it."""

    download: Download
    target: Path
    progress: Progress = field(repr=False)

    @property
    def part(self) -> Path:
        """Where the bytes are collected; it stays when the download is interrupted."""
        return self.target.with_name(f"{self.target.name}.part")

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Fetch what is missing."""
        try:
            if self._here() > self.download.size:
                self.part.unlink()
            if self._here() < self.download.size:
                self._append(url)
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(_reason(error)) from error
        if self._here() < self.download.size:
            raise self._failed(f"the connection ended after {self._here():,} of {self.download.size:,} bytes.")
        os.replace(self.part, output_file)

    def _here(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _append(self, url: str) -> None:
        """One request for the rest; from the start if the server does not know ranges."""
        here = self._here()
        try:
            response = _get(url, start=here)
        except HTTPError as error:
            if not here or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            here, response = 0, _get(url, start=0)
        with closing(response), self.part.open("ab") as out:
            if response.status == http.HTTPStatus.OK:
                here = 0  # the whole file: the server does not know ranges
            elif not _continues(response, start=here):
                raise self._failed("the server sends another part of the file than it was asked for.")
            out.truncate(here)
            while chunk := response.read(_CHUNK):
                here += len(chunk)
                if here > self.download.size:
                    raise self._failed(f"the server sends more than {self.download.size:,} bytes.")
                out.write(chunk)
                self.progress(self.download, here)
            out.flush()
            os.fsync(out.fileno())

    def _failed(self, reason: str) -> DownloadFailed:
        return DownloadFailed(self.download, self.target, reason)


def _get(url: str, *, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "fisherkit", **({"Range": f"bytes={start}-"} if start else {})}
    response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S)
    assert isinstance(response, http.client.HTTPResponse)  # the catalogue has only http and https
    return response


def _continues(response: http.client.HTTPResponse, *, start: int) -> bool:
    """Whether the answer is the part of the file that begins at this byte."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and match is not None and int(match[1]) == start


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    code = f"HTTP {error.code} " if isinstance(error, HTTPError) else ""
    return f"{code}{cause or type(error).__name__}."
