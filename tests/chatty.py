"""Tiny models that chat: random weights, a token a byte, ChatML. And how tests read an engine's streams."""

import atexit
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import tiny
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from macllm.engine.client import EngineClient
from macllm.engine.events import Done, Event, Failed, Token
from macllm.engine.protocol import Generate, ModelRef
from macllm.engine.request import Limits, Sampling
from macllm.engine.stream import Stream
from macllm.families import spec_from_config
from macllm.tokenizer.messages import Message
from macllm.weights.names import hugging_face

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONFIGS: dict[str, dict[str, Any]] = {
    "endless": {"max_position_embeddings": 200_000},
    "short": {"max_position_embeddings": 140},
    "big": {"hidden_size": 480, "intermediate_size": 1600},  # tens of MB
    "deep": {"num_hidden_layers": 500},  # loads for a while
    "other": {"hidden_size": 60},  # small, and of other weights than the first two
}


@cache
def _scratch() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="macllm-chatty-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def folder(name: str) -> Path:
    """The folder of one of ``CONFIGS``, written once a run. Do not change it."""
    place = _scratch() / name
    config = {
        **tiny.config_of("llama"),
        "vocab_size": 300,
        "eos_token_id": 2,
        "bos_token_id": 0,
        **CONFIGS[name],
    }
    _write_weights(config, place)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *alphabet])}
    library = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    library.save(str(place / "tokenizer.json"))
    return place


def _write_weights(config: dict[str, Any], place: Path) -> None:
    spec = spec_from_config(config, place.name)
    naming = hugging_face(spec)
    arrays = {}
    for number, tensor in enumerate(spec.tensors()):
        middle, spread = (1.0, 0.3) if tensor.kind == "norm" else (0.0, 0.2)
        key = mx.random.key(number)
        arrays[naming.stored(tensor.name)[0]] = mx.random.normal(
            tensor.shape, loc=middle, scale=spread, key=key
        )
    place.mkdir()
    mx.save_safetensors(str(place / "model.safetensors"), arrays)
    (place / "config.json").write_text(json.dumps(config))


def ref(name: str = "endless", **sampling: float) -> ModelRef:
    return ModelRef(name, str(folder(name)), "float32", sampling)


def talk(*texts: str) -> tuple[Message, ...]:
    """A user's message, a reply, a user's message and so on."""
    roles = ("user", "assistant")
    return tuple(Message.of(roles[index % 2], text) for index, text in enumerate(texts))


def ask(text: str = "Hello", tokens: int | None = 20, *, model: str = "endless", **fields: Any) -> Generate:
    """A request that goes on to its last token, the same each time."""
    limits = Limits(max_tokens=tokens, ignore_eos=True)
    sampling = fields.pop("sampling", Sampling(temperature=1.0, seed=7))
    messages = fields.pop("messages", talk(text))
    return Generate(ref(model), messages, sampling=sampling, limits=limits, **fields)


@asynccontextmanager
async def engine(*command: str, **options: Any) -> AsyncIterator[EngineClient]:
    """A started engine, closed at the end."""
    client = EngineClient(command or None, **options)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def read(stream: Stream) -> list[Event]:
    """All events, to the end."""
    return [event async for batch in stream for event in batch]


async def until(stream: Stream, kind: type) -> list[Event]:
    """Events up to and with the batch that holds one of ``kind``."""
    events: list[Event] = []
    async for batch in stream:
        events += batch
        if any(isinstance(event, kind) for event in batch):
            return events
    raise AssertionError(f"the stream ended without {kind.__name__}: {events[-3:]}")


def ids(events: Sequence[Event]) -> list[int]:
    return [event.id for event in events if isinstance(event, Token)]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token | Done))


def done(events: Sequence[Event]) -> Done:
    last = events[-1]
    assert isinstance(last, Done), last
    return last


def failure(events: Sequence[Event]) -> Failed:
    last = events[-1]
    assert isinstance(last, Failed), last
    return last
