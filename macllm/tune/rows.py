"""Checks training data before any model is loaded: every row of a JSONL file, or of a folder of them, is read once.

A row is a JSON object on a line of its own, in one of six schemas (as mlx-lm, TRL and OpenAI's API write them):
``messages`` (with ``tools``), ``prompt`` and ``completion``, the same with a ``label``, ``text``, or ``prompt``,
``chosen`` and ``rejected``, or ``prompt`` beside whatever a reward needs to judge answers. One line is in memory at
a time, however large the file is.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from macllm.errors import Cancelled, InputError
from macllm.tune import hub_data
from macllm.tune.keys import Renamed, parse
from macllm.tune.schema import Row, RowError, Schema, read_row

SPLITS = ("train.jsonl", "valid.jsonl", "test.jsonl")
MISNAMED = {  # what others call them: named, because leaving them out in silence would train without them
    "training.jsonl": "train.jsonl",
    "validation.jsonl": "valid.jsonl",
    "val.jsonl": "valid.jsonl",
    "dev.jsonl": "valid.jsonl",
    "eval.jsonl": "valid.jsonl",
}
LONGEST_LINE = 16_000_000  # bytes; a row beyond it is no conversation but a file without line ends
KEPT_PROBLEMS = 20
NO_ROW = "there is no row in this file; add some, or remove the file"
EXAMPLE_CHARACTERS = 4000
_REPORT_EVERY = 1 << 20  # bytes between two calls of progress
_FOREIGN = {  # first bytes of files that are no text, and what to do with them
    b"\xff\xfe": "this is UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "this is UTF-16 text; save it as UTF-8",
    b"\x1f\x8b": "this is compressed with gzip; unpack it first",
    b"PK\x03\x04": "this is a zip archive; unpack it first",
    b"PAR1": "this is a Parquet table; write it as JSONL first",
    b"(\xb5/\xfd": "this is compressed with zstd; unpack it first",
}

Progress: TypeAlias = Callable[[int, int], None]  # bytes read of all bytes


@dataclass(frozen=True)
class Problem:
    """Why one line cannot be used. ``line`` counts from 1."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class FileReport:
    """One file: its rows without the blank lines, how many can be used, and the first blank line (0: none)."""

    name: str
    path: str
    rows: int
    usable: int
    blank: int = 0
    first_blank: int = 0


@dataclass(frozen=True)
class DataReport:
    """What a data set holds.

    ``problems`` are the first of ``problem_count``. ``supervised`` rows have something to learn from. Lengths
    are in characters of text. ``example`` is the first good row as text. ``notes`` are sentences about what was
    left out or will be made up.
    """

    files: tuple[FileReport, ...]
    schemas: Mapping[Schema, int]
    problems: tuple[Problem, ...]
    problem_count: int
    supervised: int
    longest: int
    longest_at: str  # file:line
    mean: float
    example: str
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def train_rows(self) -> int:
        """Usable rows of the file that is trained on."""
        return self.files[0].usable

    @property
    def good(self) -> bool:
        """Whether it can be trained on as it is."""
        return not self.problem_count and self.train_rows > 0

    @property
    def schema(self) -> Schema | None:
        """The schema of all rows; None where there is none, or several."""
        return next(iter(self.schemas)) if len(self.schemas) == 1 else None


@dataclass
class _Tally:
    """What is counted while the files are read."""

    keep: int
    schemas: Counter[Schema] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    supervised: int = 0
    characters: int = 0
    longest: int = 0
    longest_at: str = ""
    example: str = ""
    first: Schema | None = None

    def refuse(self, problem: Problem) -> None:
        self.problem_count += 1
        if len(self.problems) < self.keep:
            self.problems.append(problem)

    def take(self, row: Row, file: str, line: int) -> None:
        """Counts a row; a schema other than the first row's is a problem."""
        self.schemas[row.schema] += 1
        if self.first is None:
            self.first, self.example = row.schema, row.render()[:EXAMPLE_CHARACTERS]
        if row.schema != self.first:
            self.refuse(Problem(file, line, other_schema(row, self.first)))
            return
        self.supervised += 1
        self.characters += row.characters
        if row.characters > self.longest:
            self.longest, self.longest_at = row.characters, f"{file}:{line}"


def check(
    path: Path,
    *,
    keys: str = "",
    keep: int = KEPT_PROBLEMS,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> DataReport:
    """Reads all rows of ``path``, a .jsonl file or a folder with train.jsonl and perhaps valid and test.

    ``keys`` as :func:`macllm.tune.keys.parse` reads them. ``progress`` and ``cancelled`` are called about once
    a megabyte. Raises InputError where there is nothing to read, Cancelled where ``cancelled`` said so; what is wrong
    inside a file is in the report.
    """
    files, notes = data_files(path)
    renamed = parse(keys)
    total = sum(file.stat().st_size for file in files)
    tally, reports, before = _Tally(keep), [], 0

    def step(done: int) -> None:
        if cancelled is not None and cancelled():
            raise Cancelled(f"{path}: the check was cancelled")
        if progress is not None:
            progress(before + done, total)

    for file in files:
        report = _check_file(file, renamed, tally, step)
        if not report.rows:
            tally.refuse(Problem(report.name, 1, NO_ROW))
        reports.append(report)
        before += file.stat().st_size
    if not any(report.name == "valid.jsonl" for report in reports):
        notes.append("Without a valid.jsonl, some rows are set aside to validate with.")
    return DataReport(
        files=tuple(reports),
        schemas=dict(tally.schemas),
        problems=tuple(tally.problems),
        problem_count=tally.problem_count,
        supervised=tally.supervised,
        longest=tally.longest,
        longest_at=tally.longest_at,
        mean=tally.characters / tally.supervised if tally.supervised else 0.0,
        example=tally.example,
        notes=tuple(notes),
    )


def other_schema(row: Row, first: Schema) -> str:
    """Why a row cannot stand beside a first one of another schema."""
    return f"this row is {row.schema!r} where the first one is {first!r}; keep one kind of row in a data set"


def data_files(path: Path) -> tuple[list[Path], list[str]]:
    """The files that are meant, the one to train on first, and what is to be said about the others.

    What is no file or folder may be a name on Hugging Face (:mod:`macllm.tune.hub_data`). Raises InputError where
    there is none to read.
    """
    path = path.expanduser()
    try:
        if path.is_dir():
            return _split_files(path)
        if path.is_file():
            with path.open("rb"):
                return [path], []
        if path.exists():
            raise InputError(f"{path}: this is neither a file nor a folder; name a .jsonl file")
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}); name another file") from None
    name = hub_data.parse(str(path))
    if name is not None:
        return _split_files(hub_data.written(name))
    raise InputError(
        f"{path}: there is no such file or folder; name a .jsonl file, or a folder with train.jsonl"
    )


def _split_files(folder: Path) -> tuple[list[Path], list[str]]:
    names = sorted(file.name for file in folder.iterdir() if file.suffix == ".jsonl")
    if SPLITS[0] not in names:
        near = next((name for name in names if MISNAMED.get(name) == SPLITS[0]), None)
        remedy = (
            f"rename {near}"
            if near
            else f"it has {', '.join(names[:5])}: name one of them, or rename it"
            if names
            else "name a .jsonl file"
        )
        raise InputError(f"{folder}: there is no train.jsonl in this folder; {remedy}")
    notes = [
        f"{name} is not used: it would have to be called {wanted}."
        for name, wanted in MISNAMED.items()
        if name in names and wanted not in names
    ]
    return [folder / name for name in SPLITS if name in names], notes


def _check_file(
    file: Path, keys: Sequence[Renamed], tally: _Tally, step: Callable[[int], None]
) -> FileReport:
    rows = usable = blank = first_blank = 0
    for number, row in read_rows(file, step, keys):
        if row is None:
            blank += 1
            first_blank = first_blank or number
            continue
        rows += 1
        if isinstance(row, RowError):
            tally.refuse(Problem(file.name, number, str(row)))
            continue
        before = tally.problem_count
        tally.take(row, file.name, number)
        usable += tally.problem_count == before
    return FileReport(file.name, str(file), rows, usable, blank, first_blank)


def read_rows(
    file: Path, step: Callable[[int], None], keys: Sequence[Renamed] = ()
) -> Iterator[tuple[int, Row | RowError | None]]:
    """Line numbers from 1, each with its row, with the reason why it is none, or None where it is blank.

    Rows are read under other ``keys``. ``step`` is called with the bytes read, about once a megabyte.
    """
    for number, line in _lines(file, step):
        found: Row | RowError | None
        if isinstance(line, RowError):
            found = line
        elif line == "":
            found = None
        else:
            try:
                found = read_row(line, keys)
            except RowError as error:
                found = error
        yield number, found
        if isinstance(found, RowError) and found.whole_file:
            return


def _lines(file: Path, step: Callable[[int], None]) -> Iterator[tuple[int, str | RowError]]:
    """Line numbers from 1 with each line stripped, or with the reason why it is no text."""
    done = reported = number = 0
    step(0)
    with file.open("rb") as lines:
        while raw := lines.readline(LONGEST_LINE + 1):
            number += 1
            length = len(raw)
            if number == 1:
                foreign = next((why for magic, why in _FOREIGN.items() if raw.startswith(magic)), None)
                if foreign is not None:
                    yield 1, RowError(foreign, whole_file=True)
                    return
                raw = raw.removeprefix(b"\xef\xbb\xbf")  # a byte order mark, which Windows tools write
            if length > LONGEST_LINE:
                while rest := lines.readline(LONGEST_LINE):
                    length += len(rest)
                    if rest.endswith(b"\n"):
                        break
                yield (
                    number,
                    RowError(f"the line is longer than {LONGEST_LINE // 10**6} MB; write one row a line"),
                )
            else:
                yield number, _decoded(raw)
            done += length
            if done - reported >= _REPORT_EVERY:
                step(done)
                reported = done
    step(done)


def _decoded(raw: bytes) -> str | RowError:
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        return RowError(f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8")
