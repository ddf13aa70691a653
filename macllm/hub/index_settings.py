"""Which package indexes this machine is set to: the environment and configuration files of pip and uv."""

import configparser
import os
import ssl
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.errors import ConfigError

if TYPE_CHECKING:
    import httpx2

DEFAULT_INDEX = "https://pypi.org/simple"
_PIP_SECTIONS = ("global", "download", "install")
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class IndexSettings:
    """Indexes in the order they are asked, places of loose links, and a file of certificates if one is set."""

    indexes: tuple[str, ...]
    links: tuple[str, ...] = ()
    certificates: str | None = None


def read_settings(
    environment: Mapping[str, str] = os.environ, files: Sequence[Path] | None = None
) -> IndexSettings:
    """What pip's and uv's settings say together; the environment goes before files, pip before uv.

    ``files`` are the configuration files to read, the most particular last; by default those of this machine.
    """
    pip: dict[str, str] = {}
    uv: dict[str, Any] = {}
    for file in config_files(environment) if files is None else files:
        if file.suffix == ".toml":
            uv.update(_read_uv(file))
        else:
            pip.update(_read_pip(file))
    for key in ("index-url", "extra-index-url", "find-links", "no-index", "cert"):
        value = environment.get("PIP_" + key.upper().replace("-", "_"))
        if value is not None:
            pip[key] = value
    named, default = _uv_indexes(uv, environment)
    main = pip.get("index-url") or default or DEFAULT_INDEX
    extra = [*pip.get("extra-index-url", "").split(), *named]
    links = [*pip.get("find-links", "").split(), *_uv_links(uv, environment)]
    off = pip.get("no-index", "").lower() in ("1", "true", "yes", "on")
    certificates = pip.get("cert") or next(
        (environment[k] for k in _CERTIFICATES if environment.get(k)), None
    )
    indexes = () if off else tuple(dict.fromkeys([main, *extra]))
    return IndexSettings(indexes, tuple(dict.fromkeys(links)), certificates)


def config_files(environment: Mapping[str, str]) -> list[Path]:
    """Where pip and uv look, the most particular last."""
    home = Path.home()
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    shared = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    files = [Path(folder) / "pip" / "pip.conf" for folder in reversed(shared.split(":"))]
    files += [Path("/etc/pip.conf"), Path("/etc/uv/uv.toml"), home / ".pip" / "pip.conf"]
    if sys.platform == "darwin":
        support = Path("Library") / "Application Support" / "pip" / "pip.conf"
        files += [Path("/") / support, home / support]
    files += [config / "pip" / "pip.conf", Path(sys.prefix) / "pip.conf", config / "uv" / "uv.toml"]
    for variable in ("PIP_CONFIG_FILE", "UV_CONFIG_FILE"):
        if environment.get(variable):
            files.append(Path(environment[variable]))
    return [file for file in files if file.is_file()]


def index_client(settings: IndexSettings) -> "httpx2.Client":
    """An HTTP client that knows the environment's proxies and netrc, and trusts what the settings trust."""
    import httpx2

    if settings.certificates is None:
        return httpx2.Client(follow_redirects=True)
    path = Path(settings.certificates)
    try:
        context = ssl.create_default_context(
            cafile=None if path.is_dir() else str(path), capath=str(path) if path.is_dir() else None
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificates at {path} cannot be read ({error}); correct PIP_CERT or SSL_CERT_FILE"
        ) from error
    return httpx2.Client(follow_redirects=True, verify=context)


def _read_pip(file: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise ConfigError(f"{file} is not a readable pip configuration ({error}); correct it") from error
    values: dict[str, str] = {}
    for section in _PIP_SECTIONS:
        if parser.has_section(section):
            values.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    return values


def _read_uv(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} is not a readable uv configuration ({error}); correct it") from error


def _uv_indexes(uv: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[list[str], str | None]:
    """uv's further indexes and its default one."""
    tables = [table for table in uv.get("index", []) if isinstance(table, dict) and "url" in table]
    default = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    default = default or next((str(table["url"]) for table in tables if table.get("default")), None)
    default = default or uv.get("index-url")
    named = [*environment.get("UV_INDEX", "").split(), *environment.get("UV_EXTRA_INDEX_URL", "").split()]
    named += [str(table["url"]) for table in tables if not table.get("default")]
    named += [str(url) for url in uv.get("extra-index-url", [])]
    return [_unnamed(url) for url in named], _unnamed(default) if default else None


def _unnamed(index: str) -> str:
    """uv allows ``name=https://...``."""
    name, equals, url = index.partition("=")
    return url if equals and "/" not in name and ":" not in name else index


def _uv_links(uv: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    return [
        *environment.get("UV_FIND_LINKS", "").replace(",", " ").split(),
        *map(str, uv.get("find-links", [])),
    ]
