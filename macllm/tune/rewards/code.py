"""Code tests: the share of the row's tests that the code in a completion passes, run in a sandbox."""

import re
import warnings
from typing import Any, ClassVar

from macllm.tune.rewards.reward import RawRow, Reward, said
from macllm.tune.rewards.sandbox import Sandbox

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


class CodeTests(Reward):
    """The share of ``tests`` that pass: one text of Python with asserts, or a list of them, each run after the code.

    The code is the last fenced block of what is said, or all of it. Its names are the tests' names.
    """

    apart: ClassVar[bool] = True

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        self._sandbox = sandbox or Sandbox()

    def missing(self, row: RawRow) -> str | None:
        tests = _tests(row)
        if tests is None:
            return "'tests' is no text of Python or list of them, which the reward code runs"
        for test in tests:
            try:
                with warnings.catch_warnings(action="ignore"):
                    compile(test, "tests", "exec")
            except (SyntaxError, ValueError) as error:
                return f"'tests' is no Python ({error})"
        return None

    def __call__(self, prompt: str, completion: str, row: RawRow) -> float:
        tests = _tests(row) or []
        return self._sandbox.passed(code_of(completion), tests) / len(tests)


def code_of(completion: str) -> str:
    """The last fenced block of what is said, or all of it."""
    text = said(completion)
    blocks = _FENCE.findall(text)
    return str(blocks[-1]) if blocks else text


def _tests(row: RawRow) -> list[str] | None:
    given = row.get("tests")
    tests: list[Any] = given if isinstance(given, list) else [given]
    return tests if tests and all(isinstance(test, str) and test.strip() for test in tests) else None
