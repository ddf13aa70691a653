"""Opens a body over HTTP from a byte offset: ranges, answers that refuse them, what may be tried again."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from macllm.hub.transfer import Body, BrokenTransferError, Open

if TYPE_CHECKING:
    import httpx2

# Answers that a later try may not get: the server is busy, restarting or limits the rate.
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
CONNECT_S = 15.0
READ_S = 30.0


def open_url(
    client: "httpx2.Client",
    url: str,
    headers: Mapping[str, str],
    check: Callable[["httpx2.Response"], None],
) -> Open:
    """The :data:`Open` of ``url``. ``check`` raises for an answer that no retry will better."""

    def open_at(offset: int) -> AbstractContextManager[Body]:
        return _body(client, url, headers, offset, check)

    return open_at


@contextmanager
def _body(
    client: "httpx2.Client",
    url: str,
    headers: Mapping[str, str],
    offset: int,
    check: Callable[["httpx2.Response"], None],
) -> Iterator[Body]:
    import httpx2

    # identity: a compressed body has other offsets than the file
    asked = {**headers, "Accept-Encoding": "identity"}
    if offset:
        asked["Range"] = f"bytes={offset}-"
    timeout = httpx2.Timeout(READ_S, connect=CONNECT_S)
    try:
        with client.stream("GET", url, headers=asked, timeout=timeout) as response:
            if response.status_code in TRANSIENT:
                raise BrokenTransferError(f"the server answered {response.status_code}")
            if response.status_code != 416:
                check(response)
                start, total = _position(response)
                yield Body(start, _translated(response.iter_bytes()), total)
                return
            if response.headers.get("Content-Range") == f"bytes */{offset}":
                yield Body(offset, iter(()), offset)  # nothing is missing
                return
        with _body(client, url, headers, 0, check) as body:  # another, shorter file is there now
            yield body
    except httpx2.TransportError as error:
        raise BrokenTransferError(_reason(error)) from error


def _translated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import httpx2

    try:
        yield from chunks
    except httpx2.TransportError as error:
        raise BrokenTransferError(_reason(error)) from error


def _position(response: "httpx2.Response") -> tuple[int, int | None]:
    if response.status_code == 206:
        match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match:
            return int(match[1]), None if match[2] == "*" else int(match[2])
    if "Content-Encoding" in response.headers:
        return 0, None  # its length is that of the compressed body
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
