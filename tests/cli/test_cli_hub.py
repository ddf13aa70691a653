"""``macllm pull``, ``list`` and ``rm`` as processes: exit codes, streams, an interrupt and the resume after it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "hub"))

from hub_server import Hub

from macllm.cli.download import DownloadDisplay
from macllm.cli.progress import Progress
from macllm.hub.progress import Checking, Planned, Retrying
from macllm.hub.progress import Progress as Arrived

REPO = "org/model"
WEIGHTS = bytes(range(256)) * 2_000
FILES = {"config.json": b'{"quantization": {"group_size": 64, "bits": 4}}', "model.safetensors": WEIGHTS}


@pytest.fixture
def hub():
    server = Hub()
    server.start()
    server.add(REPO, FILES)
    yield server
    server.stop()


@pytest.fixture
def environment(tmp_path, hub):
    """Only variables: this is how a user points the command somewhere else."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "PIP_", "UV_", "MACLLM_"))
    }
    return {
        **kept,
        "MACLLM_HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "MACLLM_BLAS": "off",
        "PYTHONUNBUFFERED": "1",
    }


def start(environment, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "macllm", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(environment, *words, code=0):
    process = start(environment, *words)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def test_pull_list_and_remove(environment, tmp_path):
    out, err = run(environment, "pull", REPO, "--name", "mine")
    assert out.startswith("mine: 512 kB at ") and out.count("\n") == 1
    assert err == "org/model: 2 files, 512 kB\n", "quick work shows no progress"
    (listed,) = json.loads(run(environment, "list", "--json")[0])
    assert (listed["name"], listed["format"], listed["quantization"]) == ("mine", "safetensors", "4 bit")
    assert listed["size_bytes"] == sum(map(len, FILES.values())) and listed["last_used"] is None
    assert (Path(listed["path"]) / "model.safetensors").read_bytes() == WEIGHTS
    table = run(environment, "list")[0].splitlines()
    assert table[0].split() == ["NAME", "SIZE", "FORMAT", "LAST", "USED", "SOURCE"]
    assert table[1].split() == ["mine", "512", "kB", "safetensors", "4", "bit", "never", REPO]
    assert run(environment, "rm", "mine")[0] == "removed mine, 512 kB freed\n"
    assert "no model is installed" in run(environment, "list")[0]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_pull_prints_one_json_object(environment, hub):
    out, _ = run(environment, "pull", REPO, "--revision", "main", "--json")
    pulled = json.loads(out)
    assert pulled["revision"] == hub.repos[REPO].refs["main"]
    assert {file["path"]: file["size_bytes"] for file in pulled["files"]} == {
        k: len(v) for k, v in FILES.items()
    }
    assert all(len(file["sha256"]) == 64 for file in pulled["files"])


def test_an_interrupted_pull_is_resumed(environment, hub, tmp_path):
    released = threading.Event()
    hub.hold["model.safetensors"] = (200_000, released)
    process = start(environment, "pull", REPO)
    deadline = time.monotonic() + 30
    partial: list[Path] = []
    while time.monotonic() < deadline and not (partial and partial[0].stat().st_size == 200_000):
        partial = list(tmp_path.rglob("*.partial"))
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.endswith("macllm: interrupted\n") and "Traceback" not in err
    assert partial[0].stat().st_size == 200_000
    assert json.loads(run(environment, "list", "--json")[0]) == []
    released.set()
    hub.hold.clear()
    run(environment, "pull", REPO)
    assert hub.bodies()[-1].range == "bytes=200000-" and hub.bodies()[-1].sent == len(WEIGHTS) - 200_000
    (listed,) = json.loads(run(environment, "list", "--json")[0])
    assert (Path(listed["path"]) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("pull", "startr"), 2, "did you mean starter?"),
        (("pull", "org/nothing"), 2, "org/nothing does not exist on"),
        (("pull", "org/model@v9"), 2, "has no revision 'v9'"),
        (("pull", "org/model/x.gguf"), 2, "has no file 'x.gguf'"),
        (("pull", "./nowhere"), 2, "there is nothing at nowhere"),
        (("pull", "org/model", "--name", "../x"), 2, "'../x' cannot name a model"),
        (("pull", "starter", "--revision", "main"), 2, "only repositories have revisions"),
        (("rm", "nothing"), 2, "'nothing' is not installed"),
    ],
)
def test_bad_input_is_one_sentence(environment, words, code, text, tmp_path):
    out, err = run(environment, *words, code=code)
    assert out == "" and err.count("\n") == 1 and err.startswith("macllm: ") and text in err
    assert not list((tmp_path / "home").rglob("*")) if (tmp_path / "home").exists() else True


def test_offline_is_a_failure_and_not_bad_input(environment):
    _, err = run({**environment, "HF_HUB_OFFLINE": "1"}, "pull", REPO, code=1)
    assert err.count("\n") == 1 and "HF_HUB_OFFLINE forbids" in err


def test_the_catalogue_is_shown(environment):
    out = run(environment, "list", "--catalogue")[0]
    assert out.splitlines()[0].split()[:4] == ["NAME", "SIZE", "MAC", "CONTEXT"]
    shown = json.loads(run(environment, "list", "--catalogue", "--json")[0])
    assert len(shown) >= 15 and len(out.splitlines()) == len(shown) + 1
    assert {entry["name"] for entry in shown} >= {"starter", "qwen3-4b"}
    assert not any(entry["installed"] for entry in shown)


def test_a_slow_download_shows_its_pace_and_a_resume(capsys):
    now = [0.0]
    with DownloadDisplay(
        "mine", lambda label, total: Progress(label, total, clock=lambda: now[0])
    ) as display:
        display(Planned("org/model", 3, 10_000_000_000, 4_000_000_000))
        for done in range(4, 11):
            display(Arrived("w", done * 1_000_000_000, 10_000_000_000, None, None))
            now[0] += 20.0
        display(Retrying("w", "the line broke", 3.0))
        display(Checking("w", 1_000, 2_000))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "org/model: 3 files, 10.0 GB (4.0 GB of it are here already)"
    assert "mine: 60 % of 10.0 GB, 50.0 MB/s, 1 min 20 s left" in lines
    assert any(line.startswith("mine: 100 %") for line in lines)
    assert lines[-1] == "w: the line broke; trying again in 3 s"


def test_what_is_here_already_shows_nothing(capsys):
    with DownloadDisplay("mine") as display:
        display(Planned("org/model", 3, 10, 10))
        display(Arrived("w", 10, 10, None, None))
    assert capsys.readouterr().err == ""


def test_listing_needs_no_download_library(environment):
    """`macllm list` answers at once: the hub's client and MLX stay unimported."""
    code = (
        "import sys; from macllm.cli.main import main; main(['list']);"
        "print([n for n in ('huggingface_hub', 'mlx', 'httpx2', 'rich') if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stderr.strip() == "[]"
