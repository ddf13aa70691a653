"""A data set ready to be learned from: all rows read, rendered and tokenized, and what there is to say about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from macllm.errors import Cancelled
from macllm.tokenizer import Tokenizer
from macllm.tune import example_cache
from macllm.tune.examples import Example, ExampleSettings, examples_of
from macllm.tune.keys import parse
from macllm.tune.rows import NO_ROW, SPLITS, Problem, Progress, data_files, other_schema, read_rows
from macllm.tune.schema import Row, RowError, Schema
from macllm.tune.split import validation_rows


@dataclass(frozen=True)
class Statistics:
    """Of some examples: rows, tokens (``supervised`` count in the loss), the longest and where, how many were cut."""

    rows: int
    tokens: int
    supervised: int
    longest: int
    longest_at: str  # file:line
    truncated: int

    @property
    def supervised_share(self) -> float:
        return self.supervised / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class DataSet:
    """Examples to train on, to validate and to test with.

    ``schema`` is that of all rows; of a preference row two examples follow each other. ``set_aside`` where the
    validation rows were taken from the training file. With ``problems`` there are no examples, for a run would
    leave rows out in silence. ``key`` is a digest of what they were made of.
    """

    train: tuple[Example, ...] = ()
    valid: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    schema: Schema | None = None
    set_aside: bool = False
    problems: tuple[Problem, ...] = ()
    key: str = ""

    @property
    def good(self) -> bool:
        """Whether it can be trained on."""
        return not self.problems

    @property
    def pairs(self) -> bool:
        """Whether two examples follow each other for every row: the chosen and the rejected one."""
        return self.schema == "preference"


def prepare(
    path: Path,
    tokenizer: Tokenizer,
    settings: ExampleSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> DataSet:
    """The data set at ``path``, a .jsonl file or a folder with train.jsonl and perhaps valid and test.

    Examples that were made before are taken from the disk. Without a valid.jsonl some rows of the training file
    are set aside by ``seed``. ``progress`` and ``cancelled`` are called about once a megabyte. Raises InputError
    where there is nothing to read or too little to validate with, Cancelled where ``cancelled`` said so.
    """
    files, _ = data_files(path)
    key = example_cache.key(files, tokenizer, settings)
    made = example_cache.load(key)
    if made is None:
        reading = _Reading(tokenizer, settings)
        examples = reading.all(files, progress, cancelled)
        if reading.problems or reading.schema is None:
            return DataSet(problems=tuple(reading.problems), key=key)
        made = example_cache.Made(reading.schema, examples)
        if example_cache.key(files, tokenizer, settings) == key:  # no file changed meanwhile
            example_cache.save(key, made)
    train = made.examples[files[0].name]
    others = [file.name for file in files[1:]]
    valid, test = (made.examples[name] if name in others else () for name in SPLITS[1:])
    if valid:
        return DataSet(train, valid, test, made.schema, key=key)
    train, valid = _set_aside(train, 2 if made.schema == "preference" else 1, seed)
    return DataSet(train, valid, test, made.schema, set_aside=True, key=key)


def statistics(examples: Sequence[Example]) -> Statistics:
    """What there is to say about examples; the two of a preference row count as two."""
    longest = max(examples, key=len, default=None)
    return Statistics(
        rows=len(examples),
        tokens=sum(len(example) for example in examples),
        supervised=sum(example.supervised for example in examples),
        longest=len(longest) if longest is not None else 0,
        longest_at=longest.place if longest is not None else "",
        truncated=sum(example.truncated for example in examples),
    )


class _Reading:
    """Rows of all files into examples, and every problem on the way."""

    def __init__(self, tokenizer: Tokenizer, settings: ExampleSettings) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self.schema: Schema | None = None
        self.problems: list[Problem] = []

    def all(
        self, files: Sequence[Path], progress: Progress | None, cancelled: Callable[[], bool] | None
    ) -> dict[str, tuple[Example, ...]]:
        """The examples of each file by its name."""
        sizes = [file.stat().st_size for file in files]
        made = {}
        for index, file in enumerate(files):
            before = sum(sizes[:index])

            def step(done: int, before: int = before) -> None:
                if cancelled is not None and cancelled():
                    raise Cancelled(f"{files[0]}: the preparation was cancelled")
                if progress is not None:
                    progress(before + done, sum(sizes))

            made[file.name] = self._file(file, step)
        return made

    def _file(self, file: Path, step: Callable[[int], None]) -> tuple[Example, ...]:
        examples: list[Example] = []
        rows, keys = 0, parse(self._settings.keys)
        for line, row in read_rows(file, step, keys):
            if row is None:
                continue
            rows += 1
            try:
                examples += self._row(row, f"{file.name}:{line}")
            except RowError as error:
                self.problems.append(Problem(file.name, line, str(error)))
        if not rows:
            self.problems.append(Problem(file.name, 1, NO_ROW))
        return tuple(examples)

    def _row(self, row: Row | RowError, place: str) -> tuple[Example, ...]:
        if isinstance(row, RowError):
            raise row
        self.schema = self.schema or row.schema
        if row.schema != self.schema:
            raise RowError(other_schema(row, self.schema))
        return examples_of(row, place, self._tokenizer, self._settings)


def _set_aside(
    examples: Sequence[Example], together: int, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The examples to train on and those to validate with; ``together`` consecutive ones are one row."""
    rows = [tuple(examples[start : start + together]) for start in range(0, len(examples), together)]
    chosen = set(validation_rows([tuple(each.ids.tobytes() for each in row) for row in rows], seed))
    train = tuple(each for index, row in enumerate(rows) if index not in chosen for each in row)
    valid = tuple(each for index, row in enumerate(rows) if index in chosen for each in row)
    return train, valid
