"""``macllm generate``: completes one prompt, to text, JSON or logits."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.cli.options import (
    add_adapter,
    add_dtype,
    add_json,
    add_kv_bits,
    add_logprobs,
    add_sampling,
    limits_from,
    positive,
    sampling_from,
)
from macllm.cli.output import print_json, tell
from macllm.engine.events import Notice
from macllm.engine.figures import figures
from macllm.errors import InputError, MacllmError, OptionError

if TYPE_CHECKING:
    from macllm.api import LLM, Generation

HELP = "Complete one prompt: text as it comes, or one JSON object with tokens and figures."


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("model", metavar="MODEL", help="an installed or catalogue name, a repository, a path")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("-p", "--prompt", metavar="TEXT", help="the prompt; without it stdin is read")
    source.add_argument("--tokens-in", metavar="FILE", help="a JSON list of token ids instead of a text")
    parser.add_argument("--system-prompt", metavar="TEXT", help="what the model is told to be")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="continue the text itself, without the chat template (token ids always are)",
    )
    parser.add_argument(
        "--logits", metavar="FILE", help="write the float32 logits of the last prompt token (.npy)"
    )
    parser.add_argument(
        "--all-logits", action="store_true", help="with --logits: of every prompt token (L, V)"
    )
    parser.add_argument("--prefill-step-size", type=positive, metavar="N", help="prompt tokens a step")
    add_adapter(parser)
    add_dtype(parser)
    add_kv_bits(parser)
    add_json(parser)
    add_logprobs(parser)
    add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    """Loads the model, completes the prompt, shows the result."""
    if args.all_logits and not args.logits:
        raise OptionError("--all-logits goes with --logits FILE, which says where to write them")
    prompt = _prompt(args)
    if args.logits:
        _check_target(Path(args.logits))
    from macllm.cli.loading import load

    llm = load(args.model, args.dtype, args.kv_bits, args.adapter)
    generation = _generate(llm, prompt, args)
    if args.json:
        print_json(_as_json(generation))
    else:
        print()
        if generation.finish_reason == "length" and args.max_tokens is None:
            print(f"cut at {len(generation.tokens)} tokens; --max-tokens N allows more", file=sys.stderr)
        print(figures(generation.metrics), file=sys.stderr)
    return 0


def _prompt(args: argparse.Namespace) -> str | list[int]:
    """The prompt's text, or its ids."""
    if args.tokens_in:
        if args.system_prompt:
            raise OptionError("--tokens-in gives the whole prompt; leave --system-prompt out")
        return _read_ids(Path(args.tokens_in))
    if args.raw and args.system_prompt:
        raise OptionError("--raw has no chat template to put --system-prompt into; put it into the text")
    text: str = args.prompt if args.prompt is not None else sys.stdin.read()
    if not text:
        raise InputError("the prompt is empty; give one with -p TEXT or on stdin")
    return text


def _read_ids(file: Path) -> list[int]:
    try:
        ids = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file}: this is not JSON ({error}); expected a list of token ids such as [1, 2, 3]"
        ) from None
    if (
        not isinstance(ids, list)
        or not ids
        or any(isinstance(i, bool) or not isinstance(i, int) for i in ids)
    ):
        raise InputError(f"{file}: expected a JSON list of token ids such as [1, 2, 3]")
    return ids


def _generate(llm: "LLM", prompt: str | list[int], args: argparse.Namespace) -> "Generation":
    from macllm.api import collect
    from macllm.engine.generate import Options, generate
    from macllm.engine.session import Session
    from macllm.tokenizer.reasoning import reasoning_of

    submitted = time.perf_counter()
    messages: Any = prompt
    if isinstance(prompt, str) and args.system_prompt:
        messages = [{"role": "system", "content": args.system_prompt}, {"role": "user", "content": prompt}]
    ids = llm.encode(messages, raw=args.raw)
    chat = isinstance(prompt, str) and not args.raw
    logits: list[Any] = []
    options = Options(
        sampling_from(args, llm.sampling),
        limits_from(args),
        chunk=args.prefill_step_size,
        logits=logits.append if args.logits else None,
        all_logits=args.all_logits,
        reasoning=reasoning_of(llm.tokenizer, ids) if chat else None,
        submitted=submitted,
    )
    events = generate(llm.loaded, Session(llm.loaded.model), ids, options)
    told = _told(events)
    generation = collect(told if args.json else _printed(told))
    if args.logits:
        _write_logits(Path(args.logits), logits, every=args.all_logits)
    return generation


def _told(events: Any) -> Any:
    """The same events; what they say of the machine goes to stderr."""
    for event in events:
        if isinstance(event, Notice):
            tell(event.message)
        yield event


def _printed(events: Any) -> Any:
    """The same events; their text goes to stdout as it comes."""
    for event in events:
        text = getattr(event, "text", "")
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
        yield event


def _check_target(file: Path) -> None:
    """Refuses a file that cannot be written, before minutes are spent on what goes into it."""
    if file.is_dir():
        raise InputError(f"--logits {file}: this is a folder; name a file in it")
    if not file.parent.is_dir():
        raise InputError(f"--logits {file}: there is no folder {file.parent}; make it, or name another file")


def _write_logits(file: Path, parts: list[Any], *, every: bool) -> None:
    """Writes (L, V) or (V,) float32, whole or not at all."""
    import numpy as np

    logits = np.concatenate([np.array(part) for part in parts])
    partial = file.with_name(file.name + ".partial")
    try:
        with partial.open("wb") as stream:
            np.save(stream, logits if every else logits[-1])
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        # numpy's own for a full disk has neither a number nor a file
        reason = error.strerror or f"No space left on device: {error}"
        raise MacllmError(
            f"{file}: cannot be written ({reason}); free some space, or choose another place"
        ) from None


def _as_json(generation: "Generation") -> dict[str, Any]:
    result: dict[str, Any] = {
        "text": generation.text,
        "reasoning": generation.reasoning,
        "tokens": generation.tokens,
        "finish_reason": generation.finish_reason,
        "metrics": generation.metrics.as_dict(),
    }
    if generation.logprobs is not None and generation.top_logprobs is not None:
        result["logprobs"] = [
            {
                "id": token,
                "logprob": value,
                "top": [{"id": t.id, "text": t.text, "logprob": t.logprob} for t in top],
            }
            for token, value, top in zip(
                generation.tokens, generation.logprobs, generation.top_logprobs, strict=True
            )
        ]
    return result
