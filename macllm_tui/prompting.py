"""From a stored conversation to what the model is given: system prompt, summary, turns, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from macllm.chats.records import Chat, StoredMessage
from macllm.engine.request import Limits, Sampling
from macllm.tokenizer.messages import Message, TextPart

SUMMARY = "Summary of what was said before:\n"
SUMMARISE = (
    "Summarise our conversation so far in at most 200 words: facts, decisions, names and open questions that "
    "matter for going on. Write only the summary."
)


def messages_of(chat: Chat, branch: Sequence[StoredMessage]) -> tuple[Message, ...]:
    """The conversation as the model reads it. Replies without any text are left out."""
    system = chat.system
    kept = list(branch)
    place = next((index for index, one in enumerate(kept) if one.id == chat.summary_until), None)
    if chat.summary and place is not None:
        kept = kept[place + 1 :]
        system = f"{system}\n\n{SUMMARY}{chat.summary}".strip()
    messages = [Message.of("system", system)] if system else []
    for one in kept:
        if one.role == "assistant" and not one.text and not one.thought:
            continue
        message = Message(one.role, (TextPart(one.text),), reasoning=one.thought or None)
        if messages and messages[-1].role == message.role == "user":  # its reply failed; templates want turns
            message = Message.of("user", f"{messages.pop().text}\n\n{one.text}")
        messages.append(message)
    return tuple(messages)


def split_settings(
    settings: Mapping[str, Any], limits: Limits | None = None
) -> tuple[dict[str, Any], Limits]:
    """A chat's settings, as JSON kept them, as the overrides of Sampling, and Limits on top of ``limits``."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    if "logit_bias" in values:  # JSON's keys are strings
        values["logit_bias"] = {int(token): bias for token, bias in values["logit_bias"].items()}
    names = {field.name for field in fields(Limits)} & values.keys()
    return (
        {name: value for name, value in values.items() if name not in names},
        replace(limits or Limits(), **{name: values[name] for name in names}),
    )


def effective(defaults: Sampling, settings: Mapping[str, Any]) -> Sampling:
    """The model's sampling with a chat's settings on top. Raises OptionError."""
    return replace(defaults, **split_settings(settings)[0])
