"""The hub: whole and resumed downloads with the real client, and a sentence for every way it can fail."""

import json
import logging
import shutil
import socket
from pathlib import Path

import pytest
from hub_server import sha256

from macllm.errors import Cancelled, DownloadError, SourceError
from macllm.hub import huggingface, store
from macllm.hub.progress import Planned, Progress, Retrying, ignore
from macllm.hub.pull import pull
from macllm.hub.source import HubSource
from macllm.paths import free_bytes

REPO = "org/model"
NEEDED = {"config.json", "tokenizer.json", "model.safetensors"}


def fetch(report=ignore, *, repo=REPO, free=free_bytes, **source):
    return huggingface.download(HubSource(repo, **source), report, free, pause=lambda seconds: None)


def weight_bodies(hub):
    return [request for request in hub.bodies() if request.path.endswith("model.safetensors")]


def partials(tmp_path):
    return list(tmp_path.rglob("*.partial"))


def test_a_repository_arrives_whole_pinned_and_without_code(hub, model_files, tmp_path):
    commit = hub.add(REPO, model_files)
    fetched = fetch()
    assert fetched.revision == commit and fetched.downloaded
    assert {path.name for path in fetched.path.iterdir()} == NEEDED
    for file in fetched.files:
        content = (fetched.path / file.path).read_bytes()
        assert content == model_files[file.path]
        assert (file.size, file.sha256) == (len(content), sha256(content))
    assert not partials(tmp_path)


def test_the_client_itself_finds_what_was_fetched(hub, model_files):
    """The shared cache is the ecosystem's: other tools see the files, by branch and offline."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    hub.add(REPO, model_files)
    fetched = fetch()
    assert try_to_load_from_cache(REPO, "config.json", revision="main") == str(fetched.path / "config.json")
    folder = snapshot_download(REPO, local_files_only=True, allow_patterns=sorted(NEEDED))
    assert Path(folder) == fetched.path


def test_what_the_cache_has_is_not_fetched_again(hub, model_files):
    hub.add(REPO, model_files)
    fetch()
    before = len(hub.bodies()) + len(hub.bodies("/resolve/"))
    again = fetch()
    assert not again.downloaded
    assert len(hub.bodies()) + len(hub.bodies("/resolve/")) == before


def test_a_cut_body_is_continued_at_the_byte_reached(hub, model_files):
    hub.add(REPO, model_files)
    hub.cut["model.safetensors"] = [150_000]
    events = []
    fetched = fetch(events.append)
    first, second = weight_bodies(hub)
    assert first.range is None and second.range == "bytes=150000-"
    assert first.sent + second.sent == len(model_files["model.safetensors"])
    assert (fetched.path / "model.safetensors").read_bytes() == model_files["model.safetensors"]
    assert any(isinstance(event, Retrying) for event in events)


def test_a_second_pull_sends_only_the_missing_bytes(hub, model_files, tmp_path):
    hub.add(REPO, model_files)
    hub.cut["model.safetensors"] = [100_000] + [0] * 10
    with pytest.raises(DownloadError, match=r"byte 100000 of 400000.*resume"):
        fetch()
    assert [path.stat().st_size for path in partials(tmp_path)] == [100_000]
    hub.cut.clear()
    events = []
    fetched = fetch(events.append)
    assert weight_bodies(hub)[-1].range == "bytes=100000-"
    assert weight_bodies(hub)[-1].sent == 300_000
    assert (fetched.path / "model.safetensors").read_bytes() == model_files["model.safetensors"]
    planned = next(event for event in events if isinstance(event, Planned))
    assert planned.present == 100_000
    assert not partials(tmp_path)


def test_a_server_without_ranges_starts_over(hub, model_files):
    hub.add(REPO, model_files)
    hub.ranges = False
    hub.cut["model.safetensors"] = [100_000]
    fetched = fetch()
    assert weight_bodies(hub)[-1].sent == 400_000
    assert (fetched.path / "model.safetensors").read_bytes() == model_files["model.safetensors"]


def test_a_partial_longer_than_the_file_is_thrown_away(hub, model_files, tmp_path):
    hub.add(REPO, model_files)
    digest = sha256(model_files["model.safetensors"])
    blobs = tmp_path / "cache" / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.partial").write_bytes(b"x" * 500_000)
    assert (fetch().path / "model.safetensors").read_bytes() == model_files["model.safetensors"]


def test_a_damaged_partial_is_deleted_and_the_next_pull_is_right(hub, model_files, tmp_path):
    hub.add(REPO, model_files)
    digest = sha256(model_files["model.safetensors"])
    blobs = tmp_path / "cache" / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.partial").write_bytes(b"x" * 1_000)
    with pytest.raises(DownloadError, match=r"model.safetensors: the download is damaged.*SHA-256"):
        fetch()
    assert not partials(tmp_path) and not (blobs / digest).exists()
    assert (fetch().path / "model.safetensors").read_bytes() == model_files["model.safetensors"]


def test_wrong_content_is_refused_and_leaves_nothing(hub, model_files, tmp_path):
    hub.add(REPO, model_files)
    hub.damaged.add("model.safetensors")
    with pytest.raises(DownloadError, match=r"SHA-256 is [0-9a-f]{64} where [0-9a-f]{64} was expected"):
        fetch()
    assert not partials(tmp_path)
    assert not list(tmp_path.rglob("snapshots/*/model.safetensors"))


def test_wrong_content_of_a_small_file_is_refused(hub, model_files, tmp_path):
    hub.add(REPO, model_files)
    hub.damaged.add("config.json")
    with pytest.raises(DownloadError, match=r"config.json of org/model is damaged"):
        fetch()
    hub.damaged.clear()
    assert (fetch().path / "config.json").read_bytes() == model_files["config.json"]


def test_a_file_changed_between_two_pulls_is_fetched_from_its_first_byte(hub, model_files, tmp_path):
    old = hub.add(REPO, model_files)
    hub.cut["model.safetensors"] = [100_000] + [0] * 10
    with pytest.raises(DownloadError):
        fetch()
    hub.cut.clear()
    newer = {**model_files, "model.safetensors": bytes(reversed(model_files["model.safetensors"]))}
    new = hub.add(REPO, newer)
    fetched = fetch()
    assert fetched.revision == new != old
    assert weight_bodies(hub)[-1].range is None
    assert (fetched.path / "model.safetensors").read_bytes() == newer["model.safetensors"]
    assert not partials(tmp_path), "what the abandoned download left is gone"


def test_an_etag_that_changes_during_the_download_is_named(hub, model_files):
    hub.add(REPO, model_files)
    hub.etags["model.safetensors"] = "f" * 64
    with pytest.raises(DownloadError, match=r"model.safetensors changed on the server .*ffff"):
        fetch()


def test_catalogue_hashes_are_enforced_before_anything_is_fetched(hub, model_files):
    hub.add(REPO, model_files)
    with pytest.raises(DownloadError, match=r"the catalogue expects 0000"):
        huggingface.download(HubSource(REPO), ignore, free_bytes, sums={"model.safetensors": "0" * 64})
    assert not hub.bodies()


def test_a_revision_pins_the_commit(hub, model_files):
    old = hub.add(REPO, model_files)
    hub.add(REPO, {**model_files, "config.json": b"{}"})
    assert fetch(revision=old).revision == old
    assert (fetch(revision=old).path / "config.json").read_bytes() == model_files["config.json"]


def test_a_gated_repository_says_how_to_get_in(hub, model_files, monkeypatch):
    hub.add(REPO, model_files)
    hub.repos[REPO].gated = True
    with pytest.raises(SourceError, match=r"org/model is gated: accept its terms at .*org/model.*HF_TOKEN"):
        fetch()
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(SourceError, match="gated"):
        fetch()
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert (fetch().path / "config.json").exists()


def test_the_token_stays_with_the_hub(hub, model_files, monkeypatch):
    hub.add(REPO, model_files)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    fetch()
    assert all(request.authorization is None for request in hub.bodies())
    assert all(r.authorization == "Bearer hf_good" for r in hub.requests if r.path.startswith("/api/"))


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_that_is_not_there(hub, model_files, private):
    if private:
        hub.add(REPO, model_files)
        hub.repos[REPO].private = True
    with pytest.raises(
        SourceError, match=r"org/model does not exist on http.*or it is private; check the spelling"
    ):
        fetch()


def test_a_revision_that_is_not_there(hub, model_files):
    hub.add(REPO, model_files)
    with pytest.raises(SourceError, match=r"org/model has no revision 'v9'"):
        fetch(revision="v9")


def test_a_file_that_is_not_there(hub, model_files):
    hub.add(REPO, {**model_files, "model-Q4_K_M.gguf": b"G" * 3_000})
    with pytest.raises(SourceError, match=r"no file 'model-Q4_K.gguf' \(did you mean model-Q4_K_M.gguf\?\)"):
        fetch(file="model-Q4_K.gguf")


def test_one_file_of_a_repository(hub):
    files = {"a-Q4_0.gguf": b"A" * 3_000, "a-Q8_0.gguf": b"B" * 9_000, "README.md": b"hi"}
    hub.add(REPO, files)
    for source in ({"file": "a-Q4_0.gguf"}, {"quant": "q4_0"}):
        fetched = fetch(**source)
        assert fetched.path.name == "a-Q4_0.gguf" and fetched.path.read_bytes() == files["a-Q4_0.gguf"]
    assert all("Q8_0" not in request.path for request in hub.requests)


def test_a_full_disk_is_found_before_the_download(hub, model_files):
    hub.add(REPO, model_files)
    needed = sum(len(model_files[name]) for name in NEEDED)
    with pytest.raises(DownloadError, match=rf"needs {needed} bytes .* has 1000 bytes"):
        fetch(free=lambda folder: 1_000)
    assert not hub.bodies()


def test_the_space_that_a_resume_needs_is_only_the_rest(hub, model_files):
    hub.add(REPO, model_files)
    hub.cut["model.safetensors"] = [100_000] + [0] * 10
    with pytest.raises(DownloadError):
        fetch()
    hub.cut.clear()
    rest = sum(len(model_files[name]) for name in NEEDED) - 100_000
    with pytest.raises(DownloadError, match=f"needs {rest} bytes"):
        fetch(free=lambda folder: rest - 1)
    assert fetch(free=lambda folder: rest).downloaded


def test_offline_without_a_copy(hub, model_files, monkeypatch):
    from huggingface_hub import constants

    hub.add(REPO, model_files)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        DownloadError, match=r"org/model is not complete on this machine and HF_HUB_OFFLINE forbids"
    ):
        fetch()
    assert not hub.requests


def test_offline_with_a_copy(hub, model_files, monkeypatch):
    from huggingface_hub import constants

    hub.add(REPO, model_files)
    online = fetch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = fetch()
    assert (offline.path, offline.revision) == (online.path, online.revision)
    assert {file.path for file in offline.files} == NEEDED and not offline.downloaded


def test_offline_with_half_a_copy(hub, model_files, monkeypatch):
    from huggingface_hub import constants

    hub.add(REPO, model_files)
    (fetch().path / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="not complete on this machine"):
        fetch()


def test_a_hub_that_cannot_be_reached(hub, model_files, monkeypatch):
    from huggingface_hub import constants

    hub.add(REPO, model_files)
    fetched = fetch()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert fetch().path == fetched.path
        with pytest.raises(
            DownloadError, match=r"other/model: http.* cannot be reached \(.*\); check the connection"
        ):
            fetch(repo="other/model")


def test_a_busy_hub_is_asked_again(hub, model_files):
    hub.add(REPO, model_files)
    hub.status["/cdn/"] = [503, 429]
    assert (fetch().path / "model.safetensors").read_bytes() == model_files["model.safetensors"]


@pytest.mark.parametrize(
    ("code", "text"), [(500, "answered 500"), (429, "limits the rate"), (403, "refused the token")]
)
def test_other_answers_of_the_hub(hub, model_files, code, text):
    hub.add(REPO, model_files)
    hub.status["/api/models/"] = [code]
    with pytest.raises((DownloadError, SourceError), match=text):
        fetch()


def test_something_that_is_no_hub(hub):
    hub.status["/api/"] = [200]  # with an empty JSON object
    with pytest.raises(DownloadError, match=r"does not answer as a Hugging Face hub does; check HF_ENDPOINT"):
        fetch()


def test_progress_counts_every_byte_once(hub, model_files):
    hub.add(REPO, model_files)
    hub.cut["model.safetensors"] = [100_000]
    events = []
    fetch(events.append)
    total = sum(len(model_files[name]) for name in NEEDED)
    counts = [event.done for event in events if isinstance(event, Progress)]
    assert counts == sorted(counts) and counts[-1] == total
    assert {event.total for event in events if isinstance(event, Progress)} == {total}


def test_the_library_is_silent(hub, model_files, capfd, caplog):
    hub.add(REPO, model_files)
    hub.cut["model.safetensors"] = [100_000]
    with caplog.at_level(logging.WARNING):
        fetch()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "") and not caplog.records


@pytest.fixture
def xet(hub, model_files, monkeypatch, tmp_path):
    """The weights also lie in a Xet store on this disk; returns its folder."""
    hf_xet = pytest.importorskip("hf_xet")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    folder = tmp_path / "xet"
    folder.mkdir()
    hub.xet_store = f"local://{folder}"
    hub.add(REPO, model_files)
    with hf_xet.XetSession().new_upload_commit(endpoint=hub.xet_store) as commit:
        handle = commit.start_upload_bytes(model_files["model.safetensors"], name="w")
    hub.xet["model.safetensors"] = handle.result().xet_info.hash
    return folder


def test_xet_is_used_where_it_is_offered(hub, model_files, xet):
    assert (fetch().path / "model.safetensors").read_bytes() == model_files["model.safetensors"]
    assert not weight_bodies(hub)


def test_xet_goes_on_where_http_stopped(hub, model_files, xet, tmp_path):
    digest = sha256(model_files["model.safetensors"])
    blobs = tmp_path / "cache" / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.partial").write_bytes(model_files["model.safetensors"][:123_456])
    assert (fetch().path / "model.safetensors").read_bytes() == model_files["model.safetensors"]
    assert not weight_bodies(hub)


def test_http_takes_over_from_a_broken_xet(hub, model_files, xet):
    shutil.rmtree(xet)
    assert (fetch().path / "model.safetensors").read_bytes() == model_files["model.safetensors"]
    assert len(weight_bodies(hub)) == 1


def test_removing_frees_what_macllm_fetched_and_nothing_else(hub, model_files, tmp_path):
    files = {"a-Q4_0.gguf": b"A" * 3_000, "a-Q8_0.gguf": b"B" * 9_000}
    hub.add("org/ggufs", files)
    pull("org/ggufs:Q4_0", name="small")
    pull("org/ggufs:Q8_0", name="large")
    assert store.remove("small").freed_bytes == 3_000
    large = store.resolve("large")
    assert large is not None and large.path.read_bytes() == files["a-Q8_0.gguf"]
    assert store.remove("large").freed_bytes == 9_000
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_removing_leaves_what_another_tool_fetched(hub, model_files):
    from huggingface_hub import snapshot_download

    hub.add(REPO, model_files)
    folder = Path(snapshot_download(REPO))
    model = pull(REPO)
    assert not model.owned and not hub.bodies()[len(model_files) :]
    removed = store.remove(model.name)
    assert removed.kept == folder and (folder / "model.safetensors").exists()


def test_an_installed_model_is_found_by_name_and_source(hub, model_files):
    hub.add(REPO, model_files)
    model = pull(REPO)
    assert model.name == "model" and model.quantization == "4 bit" and model.format == "safetensors"
    for text in ("model", "MODEL", "org/model", "hf:org/model"):
        assert store.resolve(text) == model
    record = json.loads((store.folder_of("model") / store.RECORD).read_text())
    assert record["revision"] == hub.repos[REPO].refs["main"]


def test_a_name_does_not_change_its_meaning(hub, model_files):
    hub.add(REPO, model_files)
    hub.add("else/model", {**model_files, "config.json": b"{}"})
    pull(REPO)
    with pytest.raises(
        SourceError, match=r"'model' is installed from org/model; choose another name with --name"
    ):
        pull("else/model")
    assert pull("else/model", name="other").source == "else/model"


def test_pulling_again_follows_the_branch(hub, model_files):
    hub.add(REPO, model_files)
    first = pull(REPO)
    commit = hub.add(REPO, {**model_files, "config.json": b'{"a": 1}'})
    second = pull(REPO)
    assert second.revision == commit != first.revision and second.owned


def stopping(event):
    """A caller who wants no more as soon as something has arrived."""
    if isinstance(event, Progress) and event.done:
        raise Cancelled("stopped")


def test_a_stopped_download_leaves_a_file_to_go_on_with(hub, model_files, tmp_path):
    hub.add(REPO, model_files)
    hub.trickle.add("model.safetensors")
    with pytest.raises(Cancelled):
        fetch(stopping)
    assert sum(path.stat().st_size for path in partials(tmp_path)) > 0
    assert (fetch().path / "model.safetensors").read_bytes() == model_files["model.safetensors"]


def test_a_stopped_wait_stops_the_download(hub, model_files, tmp_path):
    hub.add(REPO, model_files)
    hub.cut["model.safetensors"] = [100_000, 0]

    def pause(seconds):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        huggingface.download(HubSource(REPO), ignore, free_bytes, pause=pause)
    assert [path.stat().st_size for path in partials(tmp_path)] == [100_000]


def test_xet_is_stopped_like_http(hub, model_files, xet, tmp_path):
    with pytest.raises(Cancelled):
        fetch(stopping)
    assert (fetch().path / "model.safetensors").read_bytes() == model_files["model.safetensors"]
