"""The worker's side of a benchmark: answers requests, one JSON line each, from one process of its own."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

Handler = Callable[..., Mapping[str, Any]]


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answers ``{"do": NAME, ...}`` lines on stdin until they end.

    What the measured library prints goes to stderr: the real stdout carries answers only. An exception is
    answered as ``{"error": TEXT}``.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        handler = handlers[request.pop("do")]
        try:
            answer = handler(**request)
        except (
            Exception,
            SystemExit,
        ) as error:  # the bench shows it in the cell and goes on with the other rows
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
