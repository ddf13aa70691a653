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


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], Limits]:
    """A chat's settings as the overrides of Sampling, and Limits."""
    names = {field.name for field in fields(Limits)}
    limits = {name: value for name, value in settings.items() if name in names}
    if "stop" in limits:
        limits["stop"] = tuple(limits["stop"])
    if "dry_breakers" in settings:
        settings = {**settings, "dry_breakers": tuple(settings["dry_breakers"])}
    if "logit_bias" in settings:  # JSON's keys are strings
        bias = {int(token): value for token, value in settings["logit_bias"].items()}
        settings = {**settings, "logit_bias": bias}
    return {name: value for name, value in settings.items() if name not in names}, Limits(**limits)


def effective(defaults: Sampling, settings: Mapping[str, Any]) -> Sampling:
    """The model's sampling with a chat's settings on top. Raises OptionError."""
    return replace(defaults, **split_settings(settings)[0])
