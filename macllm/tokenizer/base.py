"""What every tokenizer is: text to ids and back, its special tokens, and its chat template."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from macllm.errors import TokenizerError
from macllm.tokenizer.messages import Prompt, to_messages
from macllm.tokenizer.pieces import TextStart
from macllm.tokenizer.stream import Detokenizer
from macllm.tokenizer.template import CHATML, PLAIN, ChatTemplate, Origin, Rendering

# Tokens that end an assistant's turn wherever a template writes them. ``<|end|>`` is not one of them: in
# some formats it ends a message inside the turn, so only rendering a reply tells.
TURN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|return|>",
    "<|call|>",
)


@dataclass(frozen=True)
class Profile:
    """What is known of a tokenizer beside its vocabulary, from the files or metadata around it."""

    bos_id: int | None = None
    eos_ids: frozenset[int] = frozenset()
    special_ids: frozenset[int] = frozenset()
    special_tokens: Mapping[str, str] = field(
        default_factory=dict
    )  # for templates: bos_token, eos_token, ...
    templates: Mapping[str, str] = field(default_factory=dict)  # name -> source: default, tool_use, ...


class Tokenizer(ABC):
    """Text to ids and back.

    Decoding is by table: each id has its bytes, and a text is the bytes of its ids read as UTF-8, with
    U+FFFD for what is no character and the start trimmed as the format says. Ids outside the vocabulary
    (padding rows of an embedding) add nothing.
    """

    def __init__(self, profile: Profile, text_start: TextStart) -> None:
        self.profile = profile
        self.text_start = text_start
        self._bytes: dict[int, bytes] = {}

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the largest id."""

    @abstractmethod
    def token_to_id(self, text: str) -> int | None:
        """The id of a token by its stored text."""

    @abstractmethod
    def _encode(self, text: str, *, add_special_tokens: bool, parse_special: bool) -> list[int]:
        """Ids of a text that is valid Unicode."""

    @abstractmethod
    def _piece(self, token: int) -> bytes:
        """Bytes of an id; empty outside the vocabulary."""

    def _definition(self) -> bytes:
        """What decides how it encodes: here the bytes of every id; a kind that knows more says more."""
        pieces = (self.token_bytes(token) for token in range(self.vocab_size))
        return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all that decides which ids a conversation becomes: vocabulary, special tokens, templates."""
        profile = self.profile
        told = {
            "kind": type(self).__name__,
            "bos": profile.bos_id,
            "eos": sorted(profile.eos_ids),
            "special": sorted(profile.special_ids),
            "tokens": dict(profile.special_tokens),
            "templates": dict(profile.templates),
        }
        head = json.dumps(told, sort_keys=True).encode()
        return hashlib.sha256(head + b"\n" + self._definition()).hexdigest()

    @property
    def bos_id(self) -> int | None:
        return self.profile.bos_id

    @property
    def eos_ids(self) -> frozenset[int]:
        """End tokens that the configuration files or the metadata name."""
        return self.profile.eos_ids

    @property
    def special_ids(self) -> frozenset[int]:
        """Control tokens: they add no text to a reply."""
        return self.profile.special_ids

    @property
    def chat_template(self) -> str | None:
        """Source of the model's own (default) template; an empty one is none."""
        templates = self.profile.templates
        sources = (templates.get("default", ""), *templates.values())
        return next((source for source in sources if source.strip()), None)

    @property
    def template_origin(self) -> Origin:
        """Whose template ``render`` uses: the model's, or a default because it has none."""
        return self._template(None).origin

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a reply: ``eos_ids`` and the tokens with which the template ends a turn."""
        source = self.chat_template or ""
        ends = {self.token_to_id(token) for token in TURN_ENDS if token in source}
        ends.add(self._rendered_turn_end())
        return self.eos_ids | self.special_ids.intersection(ends)

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the tokenizer puts BOS before a text when asked for special tokens."""
        return self.bos_id is not None and self.bos_id in self.encode("", add_special_tokens=True)[:1]

    def encode(self, text: str, *, add_special_tokens: bool = False, parse_special: bool = True) -> list[int]:
        """Ids of a text.

        ``add_special_tokens`` adds what the model's own tokenizer adds (BOS, EOS). With
        ``parse_special=False`` the text of a control token is read as ordinary characters.
        """
        try:
            text.encode()
        except UnicodeEncodeError:  # lone surrogates, as from a damaged JSON escape
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._encode(text, add_special_tokens=add_special_tokens, parse_special=parse_special)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Text of ids."""
        hidden = self.special_ids if skip_special_tokens else frozenset()
        shown = [token for token in ids if token not in hidden]
        pieces: list[bytes] = []
        at_start = True
        while at_start and len(pieces) < len(shown):
            data, at_start = self.opening_bytes(shown[len(pieces)])
            pieces.append(data)
        pieces += [self.token_bytes(token) for token in shown[len(pieces) :]]
        return b"".join(pieces).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes an id adds in the middle of a text (for a special token, its name)."""
        data = self._bytes.get(token)
        if data is None:
            data = self._bytes[token] = self._piece(token)
        return data

    def opening_bytes(self, token: int) -> tuple[bytes, bool]:
        """The bytes an id adds at the start of a text, and whether the next id is still at the start."""
        return self.text_start.trim(self.token_bytes(token))

    def token_text(self, token: int) -> str:
        r"""An id as text for display; a part of a character as ``bytes:\xf0\x9f``."""
        data = self.token_bytes(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def stream(self, *, show_special: bool = False) -> Detokenizer:
        """A new streaming detokenizer."""
        return Detokenizer(self, show_special=show_special)

    def render(
        self,
        messages: Prompt,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
        now: datetime | None = None,
        **variables: Any,
    ) -> str:
        """The text a model is given for a conversation.

        ``continue_final`` leaves the last message open, for the model to go on with; ``now`` is the date
        templates may write; ``variables`` go to the template (``enable_thinking=False``).
        """
        options = Rendering(tools, add_generation_prompt, self.profile.special_tokens, variables, now)
        return self._template(tools).render(to_messages(messages), options, continue_final=continue_final)

    def encode_chat(
        self,
        messages: Prompt,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
        now: datetime | None = None,
        **variables: Any,
    ) -> list[int]:
        """Ids of ``render``'s text, with exactly one BOS where the model wants one."""
        text = self.render(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final=continue_final,
            now=now,
            **variables,
        )
        ids = self.encode(text)
        if self.bos_id is None or not self.adds_bos or ids[:1] == [self.bos_id]:
            return ids
        return [self.bos_id, *ids]

    def _template(self, tools: Sequence[Mapping[str, Any]] | None) -> ChatTemplate:
        return self._templates["tool_use" if tools and "tool_use" in self._templates else "default"]

    @cached_property
    def _templates(self) -> dict[str, ChatTemplate]:
        templates = self.profile.templates
        found = {name: ChatTemplate(source) for name, source in templates.items() if source.strip()}
        if self.chat_template is not None:
            found.setdefault("default", ChatTemplate(self.chat_template))
        elif all(self.token_to_id(token) is not None for token in ("<|im_start|>", "<|im_end|>")):
            found["default"] = ChatTemplate(CHATML, "chatml")
        else:
            found["default"] = ChatTemplate(PLAIN, "plain")
        return found

    def _rendered_turn_end(self) -> int | None:
        """The special token the template writes right after a reply, or before the next user turn."""
        options = Rendering(special_tokens=self.profile.special_tokens)
        for next_turn in (False, True):
            try:
                tail = self._template(None).text_after_reply(options, next_turn=next_turn)
            except TokenizerError:
                tail = None
            ids = self.encode(tail.lstrip()) if tail else []
            if ids and ids[0] in self.special_ids:
                return ids[0]
        return None
