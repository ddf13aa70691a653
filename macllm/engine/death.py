"""What the engine's process died of, in words."""

import signal

from macllm.errors import MacllmError

_LONGEST_WORDS = 300


class EngineDied(MacllmError):
    """The engine's process ended by itself, or never began to answer. It can be started again."""


DIED = EngineDied.__name__  # the kind of Failed that every open stream then ends with


def cause_of_death(code: int, last_words: str) -> str:
    """The sentence for a return code, negative for a signal, and the last line of its stderr."""
    words = last_words.strip()[:_LONGEST_WORDS]
    if -code == signal.SIGKILL:
        return (
            "the engine was killed by the system, most likely because memory ran out; "
            "use a smaller model or a shorter context"
        )
    if code < 0:
        name = _signal(-code)
        if -code in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            return f"the engine was ended from outside by signal {name}"
        said = f": {words}" if words else ""
        return f"the engine crashed with signal {name}{said}"
    return f"the engine exited with code {code}" + (f": {words}" if words else " and said nothing")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)
