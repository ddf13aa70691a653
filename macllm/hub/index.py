"""Finds the wheel of an exact version in the package index that pip or uv on this machine would ask.

Reads simple indexes (PEP 503 HTML, PEP 691 JSON) and flat folders or pages of links, over HTTP or ``file:``.
Neither pip nor uv is run: an environment made by uv has no pip, and most people have no uv.
"""

import html.parser
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from macllm.errors import DownloadError, SourceError
from macllm.hub.index_settings import IndexSettings
from macllm.hub.source import PackageSource

if TYPE_CHECKING:
    import httpx2

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


@dataclass(frozen=True)
class Link:
    """One file that an index offers."""

    filename: str
    url: str
    sha256: str | None = None
    size: int | None = None


def find_wheel(source: PackageSource, settings: IndexSettings, client: "httpx2.Client") -> Link:
    """The wheel of ``source``'s version in the first place that has it; raises SourceError or DownloadError."""
    seen: list[str] = []
    known = False
    failure: DownloadError | None = None
    for place, flat in [*((p, True) for p in settings.links), *((p, False) for p in settings.indexes)]:
        try:
            links = _links(place, flat, source.package, client)
        except DownloadError as error:
            failure = failure or error  # another place may have it
            continue
        known = known or links is not None
        wheels = list(_wheels(links or (), source.package))
        exact = [link for version, link in wheels if version == _version(source.version)]
        if exact:
            # any wheel has the data; the one for all platforms is what others get too
            return min(exact, key=lambda link: not link.filename.endswith("-none-any.whl"))
        seen += [str(version) for version, _ in wheels]
    if failure is not None:
        raise failure
    if seen:
        versions = ", ".join(list(dict.fromkeys(seen))[-8:])
        raise SourceError(f"{source.package} has no wheel of version {source.version} (there is {versions})")
    where = (
        ", ".join(redacted(place) for place in settings.indexes)
        or ", ".join(settings.links)
        or "no index at all"
    )
    found = "offers no wheel of" if known else "does not know the package"
    raise SourceError(
        f"{where} {found} {source.package}; check the name, or the index that pip or uv is set to"
    )


def redacted(url: str) -> str:
    """``url`` without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def local_path(url: str) -> Path | None:
    """The path of a ``file:`` address or of a plain path; None for anything remote."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in url else Path(url).expanduser()


def read_page(url: str, client: "httpx2.Client") -> tuple[str, str] | None:
    """An index page and its address after redirects; None when there is none (404)."""
    import httpx2

    path = local_path(url)
    if path is not None:
        file = path / "index.html" if path.is_dir() else path
        return (file.read_text(encoding="utf-8"), file.as_uri()) if file.is_file() else None
    try:
        response = client.get(url, headers={"Accept": ACCEPT}, timeout=20.0)
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(
            f"the package index {redacted(url)} cannot be reached ({reason}); check the connection, or set"
            " PIP_INDEX_URL to an index that can"
        ) from error
    if response.status_code in (404, 410):
        return None
    if response.status_code in (401, 403):
        raise DownloadError(
            f"the package index {redacted(url)} refused access ({response.status_code}); put user and password into its"
            " address or into ~/.netrc"
        )
    if response.status_code >= 400:
        raise DownloadError(
            f"the package index {redacted(url)} answered {response.status_code}; try again later"
        )
    return response.text, str(response.url)


def _links(place: str, flat: bool, package: str, client: "httpx2.Client") -> Sequence[Link] | None:
    """The files that ``place`` offers; None when it does not know the package."""
    folder = local_path(place)
    if flat and folder is not None and folder.is_dir():
        return [Link(file.name, file.as_uri()) for file in sorted(folder.resolve().glob("*.whl"))]
    url = place if flat else f"{place.rstrip('/')}/{_canonical(package)}/"
    page = read_page(url, client)
    if page is None:
        return None
    text, base = page
    return list(_from_json(text, base) if text.lstrip().startswith("{") else _from_html(text, base))


def _from_json(text: str, base: str) -> Iterator[Link]:
    try:
        files: Any = json.loads(text)["files"]
        for file in files:
            size = file.get("size")
            yield Link(
                file["filename"],
                urljoin(base, file["url"]),
                file.get("hashes", {}).get("sha256"),
                size if isinstance(size, int) else None,
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"the package index {redacted(base)} answered with damaged JSON ({error})"
        ) from error


def _from_html(text: str, base: str) -> Iterator[Link]:
    anchors = _Anchors()
    anchors.feed(text)
    for target in anchors.targets:
        url, fragment = urldefrag(urljoin(base, target))
        name, _, digest = fragment.partition("=")
        filename = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
        yield Link(filename, url, digest if name == "sha256" else None)


class _Anchors(html.parser.HTMLParser):
    """Collects the targets of links."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if tag == "a" and target:
            self.targets.append(target)


def _wheels(links: Sequence[Link], package: str) -> Iterator[tuple[Any, Link]]:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    for link in links:
        if not link.filename.endswith(".whl"):
            continue
        try:
            name, version, _, _ = parse_wheel_filename(link.filename)
        except InvalidWheelFilename:
            continue
        if name == _canonical(package):
            yield version, link


def _canonical(package: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(package)


def _version(text: str) -> Any:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion as error:
        raise SourceError(f"'{text}' is not a version of a Python package; give one like 1.2.3") from error
