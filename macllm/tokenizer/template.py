"""Chat templates: messages to the text a model was trained on, in Jinja's sandbox.

The environment is the one transformers gives templates (trimmed blocks, loop controls, ``tojson`` without
HTML escapes, ``raise_exception``, ``strftime_now``), so a template renders the same text here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from macllm.errors import TokenizerError
from macllm.tokenizer.messages import Message, TextPart

if TYPE_CHECKING:
    import jinja2

Origin = Literal["model", "chatml", "plain"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PLAIN = (
    "{% for message in messages %}{% if message.role in ('system', 'tool') %}{{ message.content + '\\n\\n' }}"
    "{% else %}{{ message.role | capitalize + ': ' + message.content + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

_PROBE = "MACLLM-PROBE-TEXT"
# The space shows whether the template trims what it is given.
_CUT = "MACLLM-CONTINUE-HERE "


class TemplateFailure(Exception):
    """A template did not compile or render; ``refused`` when it called ``raise_exception`` itself."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True)
class Rendering:
    """What a template sees beside the messages."""

    tools: Sequence[Mapping[str, Any]] | None = None
    add_generation_prompt: bool = True
    special_tokens: Mapping[str, str] | None = None  # bos_token, eos_token, ...
    variables: Mapping[str, Any] | None = None  # enable_thinking, date_string, documents, ...
    now: datetime | None = None  # what strftime_now reads; None is the clock


@dataclass(frozen=True)
class ChatTemplate:
    """A template's source and where it came from: the model, or a default used for want of one."""

    source: str
    origin: Origin = "model"

    def render(self, messages: Sequence[Message], options: Rendering, *, continue_final: bool = False) -> str:
        """The text of a conversation; with ``continue_final`` it stops where the last message stops.

        A template that has no place for a system message (it refuses one, or leaves its text out) gets
        that text at the head of the first user message.
        """
        if not messages:
            raise TokenizerError("messages: an empty list has nothing to render; add a user message")
        if continue_final:
            return self._render_open(messages, options)
        folded = _folded(messages)
        try:
            text = self._render(messages, options)
        except TemplateFailure as failure:
            if folded is None or not failure.refused:
                raise TokenizerError(str(failure)) from None
            try:
                return self._render(folded, options)
            except TemplateFailure:
                raise TokenizerError(str(failure)) from None
        if folded is None or messages[0].text.strip() in text:
            return text
        try:
            moved = self._render(folded, options)
        except TemplateFailure:
            return text
        return moved if messages[0].text.strip() in moved else text

    def text_after_reply(self, options: Rendering, *, next_turn: bool) -> str | None:
        """What the template writes after an assistant's reply; None when it cannot tell."""
        talk = [Message.of("user", "Hello"), Message.of("assistant", _PROBE)]
        if next_turn:
            talk.append(Message.of("user", "Hello"))
        try:
            text = self._render(talk, replace(options, add_generation_prompt=False))
        except TemplateFailure:
            return None
        return text.rpartition(_PROBE)[2] if _PROBE in text else None

    def _render_open(self, messages: Sequence[Message], options: Rendering) -> str:
        last = messages[-1]
        marked = replace(last, parts=(*last.parts, TextPart(_CUT)))
        closed = replace(options, add_generation_prompt=False)
        text = self.render([*messages[:-1], marked], closed)
        before, found, after = text.rpartition(_CUT.strip())
        if not found:
            raise TokenizerError("chat template: it leaves out the last message, so it cannot be continued")
        return before if after.startswith(" ") else before.rstrip()

    def _render(self, messages: Sequence[Message], options: Rendering) -> str:
        variables = {
            **(options.special_tokens or {}),
            "documents": None,
            **_plain(dict(options.variables or {})),
            "messages": [self._as_dict(message, parts=self._wants_parts) for message in messages],
            "tools": _tool_schemas(options.tools),
            "add_generation_prompt": options.add_generation_prompt,
        }
        return _run(self.source, variables, options.now)

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether content must be a list of parts: such a template loses the text of a plain string."""
        return not self._shows_probe(parts=False) and self._shows_probe(parts=True)

    def _shows_probe(self, *, parts: bool) -> bool:
        messages = [self._as_dict(Message.of("user", _PROBE), parts=parts)]
        try:
            return _PROBE in _run(self.source, {"messages": messages, "add_generation_prompt": False}, None)
        except TemplateFailure:
            return False

    def _as_dict(self, message: Message, *, parts: bool) -> dict[str, Any]:
        """The message as templates read it: OpenAI's keys, tool arguments as objects."""
        # Only templates of the newest models know the developer role, the system role's other name.
        role = "system" if message.role == "developer" and "developer" not in self.source else message.role
        texts = [{"type": "text", "text": part.text} for part in message.parts]
        result: dict[str, Any] = {"role": role, "content": texts if parts else message.text}
        if message.name is not None:
            result["name"] = message.name
        if message.tool_call_id is not None:
            result["tool_call_id"] = message.tool_call_id
        if message.reasoning is not None:
            result["reasoning_content"] = result["thinking"] = message.reasoning
        if message.tool_calls:
            result["tool_calls"] = [
                {
                    "type": "function",
                    **({"id": call.id} if call.id is not None else {}),
                    "function": {"name": call.name, "arguments": _plain(dict(call.arguments))},
                }
                for call in message.tool_calls
            ]
        return result


def _folded(messages: Sequence[Message]) -> list[Message] | None:
    """The messages with a leading system text moved into the first user message; None without both."""
    if len(messages) < 2 or messages[0].role not in ("system", "developer") or messages[1].role != "user":
        return None
    system, user = messages[0], messages[1]
    head = (TextPart(system.text.rstrip() + "\n\n"),) if system.text.strip() else ()
    return [replace(user, parts=(*head, *user.parts)), *messages[2:]]


def _tool_schemas(tools: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    if tools is None:
        return None
    schemas = []
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping) or not ("name" in tool or "function" in tool):
            raise TokenizerError(
                f"tools[{index}]: {tool!r} is not a tool (expected a dict with a name or a function)"
            )
        wrapped = tool if "function" in tool else {"type": "function", "function": tool}
        schemas.append(_plain(wrapped))
    return schemas


def _plain(value: Any) -> Any:
    """A copy made of JSON types only: a template must not reach methods of the caller's objects."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TokenizerError(
        f"chat template: a variable of type {type(value).__name__} is not supported (expected JSON types)"
    )


def _run(source: str, variables: Mapping[str, Any], now: datetime | None) -> str:
    """Renders ``source``; TemplateFailure with one sentence when it does not compile or fails."""
    import jinja2

    clock: Callable[[], datetime] = datetime.now if now is None else lambda: now

    def strftime_now(form: str) -> str:
        return clock().strftime(form)

    try:
        return _compiled(source).render({**variables, "strftime_now": strftime_now})
    except TemplateFailure:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFailure(
            f"chat template: line {error.lineno}: {(error.message or 'it is damaged').rstrip('.')}; correct it in the"
            " model's files, or download them again"
        ) from None
    except jinja2.exceptions.SecurityError as error:
        raise TemplateFailure(
            f"chat template: it tried to leave the sandbox ({error}); get the model from a source you trust"
        ) from None
    except (
        jinja2.TemplateError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise TemplateFailure(
            f"chat template: it failed on these messages ({what}); check roles and tools"
        ) from None
    except (RecursionError, MemoryError) as error:
        raise TemplateFailure(
            f"chat template: it does not end ({type(error).__name__}); pass another"
        ) from None


@lru_cache(maxsize=16)
def _compiled(source: str) -> "jinja2.Template":
    return _environment().from_string(source)


@lru_cache(maxsize=1)
def _environment() -> "jinja2.Environment":
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks the assistant's text for training; here its body is just rendered."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: "jinja2.parser.Parser") -> list[jinja2.nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateFailure(f"chat template: it refuses these messages: {message}", refused=True)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment
