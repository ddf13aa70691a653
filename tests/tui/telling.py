"""Recordings that nobody recorded: a conversation told request by request, with times and figures as a Mac has."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from macllm.engine.events import Counted, Done, Event, Failed, Loading, Machine, Prefill, Ready, Stats, Token
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Count, Generate, Load, ModelRef, Request
from macllm.engine.recording import Exchange, Recording, write_recording
from macllm.engine.request import Limits, Sampling
from macllm.tokenizer.messages import Message, TextPart

QWEN = ModelRef("qwen3-8b", "/models/qwen3-8b")
GEMMA = ModelRef("gemma3-4b", "/models/gemma3-4b")
MAC = Machine("metal", "Apple M3 Pro", 19_327_352_832, 14_495_514_624, "bfloat16")
WEIGHTS = {QWEN.name: 4_615_000_000, GEMMA.name: 2_480_000_000}
SPEED = {QWEN.name: 71.3, GEMMA.name: 96.8}
CONTEXT = 32_768


def ready(model: ModelRef, load_s: float = 1.9, context: int = CONTEXT) -> Ready:
    sampling = Sampling(temperature=0.6, top_p=0.95, top_k=20)
    thinks = model == QWEN
    return Ready(model.name, context, sampling, True, "model", thinks, "3f9a", load_s, WEIGHTS[model.name])


def pieces(text: str) -> list[str]:
    """A text in parts that are about as long as tokens."""
    return re.findall(r"\s*[^\s]{1,6}|\s+", text)


def assistant(text: str, thought: str = "") -> Message:
    return Message("assistant", (TextPart(text),), reasoning=thought or None)


class Telling:
    """A recording in the making; ``say`` knows what each session's model was told."""

    def __init__(self, model: ModelRef = QWEN, context: int = CONTEXT) -> None:
        self.model = model
        self.exchanges: list[Exchange] = []
        self.talks: dict[str, list[Message]] = {}
        self._at = 0.2
        self._context = context

    def load(self, model: ModelRef | None = None, *, fails: str = "") -> "Telling":
        """A model is loaded, or cannot be."""
        self.model = model or self.model
        total = WEIGHTS[self.model.name]
        parts = [(Loading(self.model.name, total * part // 4, total),) for part in range(5)]
        end: Event = Failed(fails, 1) if fails else ready(self.model, context=self._context)
        return self.add(Load(self.model), [*parts[: 2 if fails else 5], (end,)], 0.38)

    def say(
        self, text: str, answer: str, *, session: str = "c1", thought: str = "", **more: Any
    ) -> "Telling":
        """The user says something in a chat and is answered."""
        talk = self.talks.setdefault(session, [])
        talk.append(Message.of("user", text))
        self.generate(talk, answer, session=session, thought=thought, **more)
        talk.append(assistant(answer, thought))
        return self

    def generate(
        self,
        messages: Sequence[Message],
        answer: str,
        *,
        session: str = "c1",
        thought: str = "",
        ends: Event | None = None,
        complete: bool = True,
        model: ModelRef | None = None,
        settings: dict[str, Any] | None = None,
        limits: Limits | None = None,
        **figures: Any,
    ) -> "Telling":
        """A request to generate; ``ends`` is how, where it is not with the model's own end."""
        fields = {name: figures.pop(name) for name in ("continue_final", "overflow") if name in figures}
        request = Generate(
            model or self.model,
            tuple(messages),
            session,
            settings={"seed": 7, **(settings or {})},
            limits=limits or Limits(),
            **fields,
        )
        batches = list(self._reply(request, answer, thought, ends, figures))
        return self.add(request, batches if complete else batches[:-1], 0.033, complete=complete)

    def count(self, draft: str, tokens: int) -> "Telling":
        """A draft is counted."""
        return self.add(Count(self.model, (), draft), [(Counted(tokens, 900 + tokens),)], 0.01)

    def add(
        self, request: Request, batches: Sequence[tuple[Any, ...]], pace: float, *, complete: bool = True
    ) -> "Telling":
        """Any request with what comes of it."""
        timed = tuple((round(pace * number, 3), batch) for number, batch in enumerate(batches, start=1))
        self.exchanges.append(Exchange(request, timed, self._at, complete=complete))
        self._at = round(self._at + pace * len(batches) + 2, 3)
        return self

    def recording(self) -> Recording:
        return Recording(MAC, tuple(self.exchanges))

    def write(self, path: Path) -> Path:
        write_recording(path, MAC, self.exchanges)
        return path

    def _reply(
        self, request: Generate, answer: str, thought: str, ends: Event | None, figures: dict[str, Any]
    ) -> Iterator[tuple[Event, ...]]:
        prompt = 40 + sum(len(pieces(message.text)) for message in request.messages)
        reused = 0 if len(request.messages) < 3 else prompt - 60
        tokens = [Token(9, "", thought=piece) for piece in pieces(thought)]
        drafted = figures.pop("drafted", 0)
        tokens += [
            Token(number, piece, drafted=bool(drafted) and number % drafted != 0)
            for number, piece in enumerate(pieces(answer))
        ]
        speed = SPEED[request.model.name]
        metrics = Metrics(
            prompt_tokens=prompt,
            reused_tokens=reused,
            prefill_s=round((prompt - reused) / 812, 4),
            prefill_tps=812.0,
            ttft_s=round((prompt - reused) / 812 + 0.004, 4),
            max_context=self._context,
            memory_limit_bytes=MAC.memory_limit_bytes,
            memory_pressure="normal",
            dtype="bfloat16",
            backend="metal",
        )
        yield (Prefill(reused, prompt, reused),)
        yield (Prefill(prompt, prompt, reused),)
        for start in range(0, len(tokens), 3):
            some = tokens[start : start + 3]
            metrics = self._measured(metrics, tokens[: start + 3], speed, bool(drafted), request.model)
            steps = tuple(
                round(1000 / speed + (number * 37 % 11) * 0.21, 3) for number in range(start, start + 3)
            )
            yield (*some, Stats(metrics, steps)) if start % 9 == 0 else tuple(some)
        yield (ends or Done("stop", "", replace(metrics, **figures)),)

    def _measured(
        self, before: Metrics, tokens: Sequence[Token], speed: float, drafts: bool, model: ModelRef
    ) -> Metrics:
        count = len(tokens)
        thinking = sum(bool(token.thought) for token in tokens)
        context = before.prompt_tokens + count
        held = 147_456 * context
        return replace(
            before,
            decode_tokens=count,
            decode_s=round(count / speed, 4),
            decode_tps=speed,
            recent_tps=round(speed * 1.012, 1),
            step_ms_p50=round(1000 / speed, 2),
            step_ms_p99=round(1300 / speed, 2),
            thinking_tokens=thinking,
            thinking_s=round(thinking / speed, 2),
            draft_tested=count if drafts else 0,
            draft_accepted=count * 78 // 100 if drafts else 0,
            draft_rounds=max(count // 4, 1) if drafts else 0,
            context_tokens=context,
            memory_bytes=WEIGHTS[model.name] + held,
            peak_memory_bytes=WEIGHTS[model.name] + 620_000_000,
            kv_bytes=held,
            kv_by_kind={"full": held},
        )
