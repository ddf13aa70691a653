"""Opens a hub file at a byte offset: over Xet where the hub offers it, else over HTTP ranges."""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from macllm.errors import Cancelled, DownloadError
from macllm.hub.choice import RemoteFile
from macllm.hub.http import CONNECT_S, TRANSIENT, open_url
from macllm.hub.transfer import Body, BrokenTransferError, Open

if TYPE_CHECKING:
    from huggingface_hub.file_download import HfFileMetadata


def open_file(repo: str, commit: str, file: RemoteFile) -> Open:
    """The :data:`Open` of one file at one commit. Every call asks the hub anew, because signed addresses expire."""
    return _HubFile(repo, commit, file).open_at


class _HubFile:
    def __init__(self, repo: str, commit: str, file: RemoteFile) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        self._file = file
        self._url = hf_hub_url(repo, file.path, revision=commit)
        self._headers: Mapping[str, str] = build_hf_headers(library_name="macllm")
        self._xet = xet_enabled()

    def open_at(self, offset: int) -> AbstractContextManager[Body]:
        metadata = self._metadata()
        if metadata.etag is not None and metadata.etag != self._file.blob:
            raise DownloadError(
                f"{self._file.path} changed on the server while it was being downloaded (etag {self._file.blob} became"
                f" {metadata.etag}); run the same command again to fetch the new file"
            )
        if self._xet and metadata.xet_file_data is not None:
            data = metadata.xet_file_data
            return self._over_xet(data.file_hash, data.refresh_route, offset)
        return self._over_http(metadata.location, offset)

    def _metadata(self) -> "HfFileMetadata":
        import httpx2
        from huggingface_hub import get_hf_file_metadata
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return get_hf_file_metadata(self._url, headers=dict(self._headers), timeout=CONNECT_S)
        except httpx2.TransportError as error:
            raise BrokenTransferError(" ".join(str(error).split()) or type(error).__name__) from error
        except HfHubHTTPError as error:
            if error.response.status_code not in TRANSIENT:
                raise
            raise BrokenTransferError(f"the hub answered {error.response.status_code}") from error

    def _over_http(self, location: str, offset: int) -> AbstractContextManager[Body]:
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

        headers = dict(self._headers)
        if urlsplit(location).netloc != urlsplit(self._url).netloc:
            # a signed address of a content network: the token is none of its business
            headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
        return open_url(get_session(), location, headers, hf_raise_for_status)(offset)

    @contextmanager
    def _over_xet(self, file_hash: str, refresh_url: str, offset: int) -> Iterator[Body]:
        try:
            with xet_body(file_hash, self._file.size, offset, refresh_url, self._headers) as body:
                yield body
        except BrokenTransferError:
            self._xet = False  # the same bytes come over HTTP: go on there
            raise


def xet_enabled() -> bool:
    """Whether Xet is installed and not switched off by HF_HUB_DISABLE_XET."""
    from huggingface_hub import constants

    return not constants.HF_HUB_DISABLE_XET and importlib.util.find_spec("hf_xet") is not None


@contextmanager
def xet_body(
    file_hash: str, size: int, offset: int, refresh_url: str, headers: Mapping[str, str]
) -> Iterator[Body]:
    """A body from Xet's ordered stream. Its own file download cannot resume; the stream begins at any byte."""
    import hf_xet  # type: ignore[import-untyped]

    session = hf_xet.XetSession()
    try:
        group = session.new_download_stream_group(
            token_refresh_url=refresh_url, token_refresh_headers=dict(headers)
        )
        stream = group.download_stream(hf_xet.XetFileInfo(file_hash, size), start=offset, end=size)
        yield Body(offset, _translated(stream), size)
    except (OSError, RuntimeError, ValueError) as error:
        raise BrokenTransferError(f"Xet: {' '.join(str(error).split())}") from error
    except (KeyboardInterrupt, Cancelled):
        session.sigint_abort()
        raise


def _translated(stream: "Iterator[bytes]") -> Iterator[bytes]:
    try:
        yield from stream
    except (OSError, RuntimeError, ValueError) as error:
        raise BrokenTransferError(f"Xet: {' '.join(str(error).split())}") from error
