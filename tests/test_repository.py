"""What the repository promises as a whole: imports, dependencies, packaging, the files' own rules."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import macllm

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = "mlx_lm transformers torch huggingface_hub tokenizers sentencepiece tiktoken jinja2 rich textual gguf numpy"
MAX_LINES = 500
# assembled, so that this file does not name them
REGISTRY_HOSTS = ("pypi" + ".org", "python" + "hosted.org", "pytorch" + ".org", "npmjs" + ".org")
THE_DEFAULT_INDEX = "macllm/hub/index_settings.py"


def files(*suffixes: str) -> Iterator[Path]:
    """The project's own files with these suffixes."""
    folders = [
        ROOT / name for name in ("macllm", "macllm_tui", "tests", "bench", "models", "scripts", "docs", ".ci")
    ]
    for path in [*ROOT.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]:
        outside = {"__pycache__", "results", "local"} & set(path.relative_to(ROOT).parts)
        if path.is_file() and not outside and (not suffixes or path.suffix in suffixes):
            yield path


# imports


def test_importing_macllm_loads_no_model_code(run_python: Callable[..., str]) -> None:
    loaded = set(run_python("import sys, macllm; print(*sys.modules)").split())
    assert not loaded & {*HEAVY.split(), "mlx", "mlx.core", "macllm.api", "macllm.engine", "macllm.hub"}


@pytest.mark.parametrize("module", ["macllm.tokenizer", "macllm.hub.pull", "macllm.cli.main", "macllm_tui"])
def test_these_start_without_mlx(run_python: Callable[..., str], module: str) -> None:
    loaded = run_python(f"import sys, {module}; print(*sys.modules)").split()
    assert not [name for name in loaded if name.split(".")[0] in ("mlx", "mlx_lm", "transformers", "torch")]


@pytest.mark.parametrize("module", ["macllm.api", "macllm.engine"])
def test_the_engine_needs_neither_mlx_lm_nor_transformers(
    run_python: Callable[..., str], module: str
) -> None:
    loaded = run_python(f"import sys, {module}; print(*sys.modules)").split()
    assert not [name for name in loaded if name.split(".")[0] in ("mlx_lm", "transformers", "torch")]


def test_public_names_are_there() -> None:
    assert {"load", "LLM", "Chat", "Generation", "Sampling"} <= set(macllm.__all__)
    for name in macllm.__all__:
        assert getattr(macllm, name) is not None
        assert name in dir(macllm)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        macllm.laod  # noqa: B018  # the attribute is the test


# dependencies


def test_every_dependency_has_its_reason_above_it() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    section = ""
    for above, line in itertools.pairwise(lines):
        if line.startswith("["):
            section = line
        wanted = section in ("[project]", "[project.optional-dependencies]", "[dependency-groups]")
        if wanted and re.match(r'\s*(cuda = \[)?"[a-z].*[><=]=', line):
            assert above.lstrip().startswith("#"), f"no reason above: {line.strip()}"


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_it_resolves_for_the_oldest_supported_mac(python: str) -> None:
    """Needs the package index (or uv's cache of it)."""
    done = uv("pip", "compile", "--python-platform", "aarch64-apple-darwin", "--python-version", python,
              "pyproject.toml", MACOSX_DEPLOYMENT_TARGET="14.0")  # fmt: skip
    names = set(re.findall(r"^([a-z0-9-]+)==", done, re.MULTILINE))
    assert {"mlx", "mlx-metal", "mlx-lm", "huggingface-hub", "textual", "sentencepiece", "tiktoken"} <= names
    assert not names & {"cmeel-openblas", "mlx-cpu", "torch"}


def test_it_resolves_for_linux_with_its_cpu_parts() -> None:
    done = uv("pip", "compile", "--python-platform", "x86_64-manylinux_2_35", "pyproject.toml")
    names = set(re.findall(r"^([a-z0-9-]+)==", done, re.MULTILINE))
    assert {"mlx", "mlx-cpu", "cmeel-openblas"} <= names
    assert not names & {"mlx-metal", "torch"}


# packaging


@pytest.mark.slow
def test_an_installed_wheel_carries_the_catalogue_and_the_command(tmp_path: Path) -> None:
    uv("build", "--wheel", "--out-dir", str(tmp_path), ".")
    wheel = next(tmp_path.glob("macllm-*.whl"))
    packed = set(zipfile.ZipFile(wheel).namelist())
    models = sorted(path.name for path in (ROOT / "models").glob("*.toml"))
    assert len(models) >= 15
    assert {f"macllm/catalogue/{name}" for name in models} <= packed
    assert "macllm/py.typed" in packed
    # what runs kernels, and what checks them
    kernels = [
        path for path in (ROOT / "macllm" / "kernels").rglob("*") if path.suffix in (".metal", ".h", ".cpp")
    ]
    assert {str(path.relative_to(ROOT)) for path in kernels} <= packed
    assert not [name for name in packed if name.startswith(("tests/", "bench/", "models/"))]

    uv("venv", "--python", sys.executable, str(tmp_path / "venv"))
    python = tmp_path / "venv" / "bin" / "python"
    uv("pip", "install", "--python", str(python), str(wheel))
    command = str(python.with_name("macllm"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert run("--version") == f"macllm {macllm.__version__}\n"
    assert json.loads(run("doctor", "--json"))["blas"] in ("openblas", "accelerate")
    assert subprocess.run(
        [str(python), "-c", "from macllm.hub.catalogue import entries; print('starter' in entries())"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    ).stdout == "True\n"  # fmt: skip


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"


# the files' own rules


def test_no_source_file_is_longer_than_it_may_be() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files(".py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long


def test_every_module_says_its_job_in_its_first_line() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in files(".py")
        if path.stat().st_size and not path.read_text(encoding="utf-8").startswith(('"""', 'r"""'))
    ]
    assert not silent


def test_no_file_names_the_host_of_a_package_registry() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in files(".py", ".toml", ".md", ".json", ".sh", "")
        if any(host in path.read_text(encoding="utf-8", errors="ignore") for host in REGISTRY_HOSTS)
    }
    assert found <= {THE_DEFAULT_INDEX}


def test_ci_runs_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(r"^check_reply \S+ '(.*)'$", ci, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert command in readme


def test_shell_files_have_no_syntax_errors() -> None:
    for path in (ROOT / ".ci" / "run", ROOT / "scripts" / "environment"):
        assert os.access(path, os.X_OK)
        subprocess.run(["bash", "-n", str(path)], check=True)


def test_without_python_the_environment_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "env"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or "")
    done = subprocess.run(
        [ROOT / "scripts" / "environment"],
        cwd=tmp_path,
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""  # a chat's replies only
    assert "no Python 3.11 or newer found; install one" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_alone_lists_the_targets() -> None:
    make = shutil.which("make")
    assert make is not None
    done = subprocess.run([make, "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("run", "test", "test-all", "check", "format", "bench", "clean"):
        assert f"make {target} " in done.stdout


# the test suite's own rule

SKIPPING = """
import pytest
def test_one():
    pytest.skip("{reason}")
"""


@pytest.mark.parametrize(
    ("reason", "ci", "workers", "code"),
    [
        ("needs Metal", "true", "0", 0),
        ("no network", "true", "0", 1),
        ("no network", "true", "2", 1),
        ("no network", "", "0", 0),
    ],
)
def test_in_ci_a_skip_that_hides_something_fails_the_run(
    tmp_path: Path, reason: str, ci: str, workers: str, code: int
) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPING.format(reason=reason), encoding="utf-8")
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", workers, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("test_it.py::test_one: no network" in done.stdout) == (code == 1)
    assert "1 skipped" in done.stdout


def uv(*words: str, **environment: str) -> str:
    """Runs uv from the test group in the repository; gives its stdout. Trusts what pip is told to trust."""
    certificate = os.environ.get("PIP_CERT")
    trust = {"SSL_CERT_FILE": certificate} if certificate else {}
    done = subprocess.run(
        [sys.executable, "-m", "uv", "--quiet", *words],
        cwd=ROOT,
        env={**trust, **os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
