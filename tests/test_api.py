"""The Python API on the starter: one call, streams, conversations that reuse their cache."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import macllm
from macllm.api import LLM, collect
from macllm.engine.events import Done, Prefill, Token
from macllm.errors import InputError, OptionError, SourceError

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def llm(starter_gguf: Path) -> Iterator[LLM]:
    yield macllm.load(starter_gguf)


def test_a_message_is_answered(llm: LLM) -> None:
    reply = llm.generate(QUESTION, temperature=0)
    assert reply.text == str(reply) == "The capital of France is Paris."
    assert reply.finish_reason == "stop"
    assert llm.tokenizer.decode(reply.tokens, skip_special_tokens=True) == reply.text


def test_messages_and_ids_are_prompts_too(llm: LLM) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    text = llm.generate(QUESTION, temperature=0).text
    assert llm.generate(messages, temperature=0).text == text
    assert llm.generate(llm.encode(QUESTION), temperature=0).text == text


def test_raw_leaves_the_template_out(llm: LLM) -> None:
    reply = llm.generate("The capital of France is", raw=True, temperature=0, max_tokens=2)
    assert reply.text.startswith(" Paris")
    assert reply.metrics.prompt_tokens == 5
    with pytest.raises(OptionError, match="raw"):
        llm.generate([{"role": "user", "content": "x"}], raw=True)


def test_a_stream_ends_as_the_whole_does(llm: LLM) -> None:
    events = list(llm.stream(QUESTION, temperature=0))
    assert isinstance(events[0], Prefill)
    assert isinstance(events[-1], Done)
    text = "".join(event.text for event in events if isinstance(event, Token | Done))
    assert text == llm.generate(QUESTION, temperature=0).text


@pytest.mark.parametrize("stop", ["is Paris", "capital", " of France is P", "e capital o", "."])
def test_the_text_ends_before_a_stop_string_that_straddles_tokens(llm: LLM, stop: str) -> None:
    reply = llm.generate(QUESTION, temperature=0, stop=stop)
    assert reply.text == "The capital of France is Paris.".split(stop)[0]
    assert reply.finish_reason == "stop"


def test_a_stop_string_that_begins_and_does_not_come_is_text(llm: LLM) -> None:
    assert (
        llm.generate(QUESTION, temperature=0, stop=["Paris. And"]).text == "The capital of France is Paris."
    )


def test_max_tokens_ends_a_reply(llm: LLM) -> None:
    reply = llm.generate(QUESTION, temperature=0, max_tokens=3)
    assert (len(reply.tokens), reply.finish_reason) == (3, "length")


def test_logprobs_come_for_each_token(llm: LLM) -> None:
    reply = llm.generate(QUESTION, temperature=0, logprobs=2)
    assert reply.logprobs is not None
    assert reply.top_logprobs is not None
    assert len(reply.logprobs) == len(reply.tokens) == len(reply.top_logprobs)
    assert all(top[0].id == token for top, token in zip(reply.top_logprobs, reply.tokens, strict=True))
    assert "".join(top[0].text for top in reply.top_logprobs[:-1]) == reply.text


def test_a_chat_computes_only_what_is_new(llm: LLM) -> None:
    chat = llm.chat(system="You answer in one short sentence.", temperature=0)
    first = chat.send(QUESTION)
    second = chat.send("And of Italy?")
    assert second.metrics.reused_tokens == first.metrics.prompt_tokens + len(first.tokens)
    assert second.metrics.prompt_tokens - second.metrics.reused_tokens < 20
    assert [message.role for message in chat.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert llm.generate(chat.messages[:-1], temperature=0).text == second.text


def test_the_system_prompt_is_sent_once(llm: LLM) -> None:
    chat = llm.chat(system="You are a zebra.", temperature=0, max_tokens=4)
    chat.send("Hello")
    chat.send("Hello again")
    assert llm.tokenizer.decode(chat.session.tokens).count("You are a zebra.") == 1


def test_two_chats_do_not_meet(llm: LLM) -> None:
    one, two = llm.chat(temperature=0, max_tokens=12), llm.chat(temperature=0, max_tokens=12)
    one.send("My name is Ada. Please remember it.")
    assert two.send(QUESTION).text == llm.generate(QUESTION, temperature=0, max_tokens=12).text


def test_an_interrupted_reply_is_remembered_as_far_as_it_came(llm: LLM) -> None:
    chat = llm.chat(temperature=0)
    stream = chat.stream("Count from one to twenty.")
    seen = [event for _, event in zip(range(8), stream, strict=False)]
    stream.close()  # type: ignore[attr-defined]
    text = "".join(event.text for event in seen if isinstance(event, Token))
    assert chat.messages[-1].text == text
    assert chat.send(QUESTION).text


def test_a_message_that_fails_is_not_remembered(llm: LLM) -> None:
    chat = llm.chat(temperature=0, max_tokens=4)
    with pytest.raises(InputError, match="context"):
        chat.send("word " * 9000)
    with pytest.raises(AttributeError):
        chat.send("Hello", cancel=object())
    assert chat.messages == []
    assert chat.send(QUESTION).text


def test_settings_by_name(llm: LLM) -> None:
    with pytest.raises(OptionError, match="no setting 'temprature'"):
        llm.generate(QUESTION, temprature=1)
    with pytest.raises(OptionError, match="top_p=3"):
        llm.generate(QUESTION, top_p=3)


def test_logits_of_every_position(llm: LLM) -> None:
    ids = llm.tokenizer.encode("The capital of France is")
    logits = llm.logits(ids)
    assert logits.shape == (len(ids), llm.loaded.vocab)
    assert llm.tokenizer.decode([int(logits[-1].argmax())]) == " Paris"


def test_an_unknown_name_is_one_sentence() -> None:
    with pytest.raises(SourceError, match="startr"):
        macllm.load("startr")


def test_collect_runs_a_stream_to_its_end(llm: LLM) -> None:
    assert collect(llm.stream(QUESTION, temperature=0)).text == "The capital of France is Paris."


@pytest.mark.parametrize("prompt", [None, 5, b"text", [True, False], [1, "a"], []])
def test_a_prompt_of_another_type_is_refused(llm: LLM, prompt: Any) -> None:
    with pytest.raises(InputError, match="messages"):
        llm.generate(prompt, max_tokens=1)


@pytest.mark.parametrize(("name", "value"), [("stop", 5), ("stop", [5]), ("logit_bias", 5)])
def test_a_setting_of_another_type_is_refused(llm: LLM, name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        llm.generate("x", max_tokens=1, **{name: value})


def test_generations_in_threads_take_turns(starter_gguf: Path) -> None:
    """In a process of its own: without turns MLX waits for itself and nothing can end the threads."""
    code = f"""
import threading, macllm
models = [macllm.load({str(starter_gguf)!r}) for _ in range(2)]
def run(llm): print(llm.generate({QUESTION!r}, temperature=0).text + "\\n", end="", flush=True)
threads = [threading.Thread(target=run, args=(models[i % 2],)) for i in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "The capital of France is Paris.\n" * 3


def test_one_thread_may_go_through_two_streams_at_once(llm: LLM) -> None:
    settings = {"temperature": 0.0, "max_tokens": 5}
    first, second = llm.stream(QUESTION, **settings), llm.stream("Say hello.", **settings)
    # in turns; how many Stats come between the tokens is a matter of time
    pairs = list(itertools.zip_longest(first, second))
    alone = [event.id for event in llm.stream("Say hello.", **settings) if isinstance(event, Token)]
    assert [event.id for _, event in pairs if isinstance(event, Token)] == alone
