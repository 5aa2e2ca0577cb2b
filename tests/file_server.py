"""A file server on this machine for tests of downloads: with ranges or without, and broken in chosen ways."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Served:
    """What the server gives, and what it was asked for."""

    files: dict[str, bytes]
    ranges: bool = True
    break_after: int | None = None  # bytes of the body, then the connection ends
    shift: int = 0  # answers ranges that begin so many bytes later
    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    served: Served

    def do_GET(self) -> None:
        name, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.served.requests.append((name, wanted))
        if name not in self.served.files:
            self.send_error(404)
            return
        data, start = self.served.files[name], 0
        if wanted and self.served.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) + self.served.shift  # type: ignore[index]
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        self.wfile.write(body[: self.served.break_after])

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Served]:
    served = Served(files)
    handler = type("Handler", (_Handler,), {"served": served})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}/"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
