"""What a reasoning model's tokens become on their way through the engine, the Python API and the command line."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Library

from macllm.api import LLM, collect
from macllm.cli.main import main
from macllm.engine.events import Done, Token
from macllm.engine.facts import ready
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded
from macllm.engine.request import Limits
from macllm.engine.session import Session
from macllm.nn.cache import FullCache
from macllm.tokenizer.base import Profile
from macllm.tokenizer.fast import FastTokenizer
from macllm.tokenizer.reasoning import reasoning_of

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content and loop.last %}<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THOUGHT, ANSWER = "\nIs it five? No: four.\n", "It is four."
REPLY = f"<think>{THOUGHT}</think>\n\n{ANSWER}"


class Script:
    """A model that writes ``reply`` after whatever it read (a step ahead is asked for the end again)."""

    separate_head = layered = True
    learned = ""

    def __init__(self, reply: Sequence[int], vocab: int) -> None:
        self.reply, self.vocab, self.read = reply, vocab, 0

    def hidden(
        self, tokens: mx.array, caches: Sequence[FullCache], between: object = None, ahead: int = 0
    ) -> mx.array:
        length = tokens.shape[1]
        if length > 1:
            self.read = caches[0].offset + length
        caches[0].update(mx.zeros((1, 1, length, 1)), mx.zeros((1, 1, length, 1)))
        start = caches[0].offset - length
        return mx.arange(start, start + length).reshape(1, length, 1)

    def logits(self, hidden: mx.array) -> mx.array:
        place = int(hidden[0, -1, 0].item()) + 1 - self.read
        return (mx.arange(self.vocab) == self.reply[min(place, len(self.reply) - 1)]).astype(mx.float32)[
            None, None
        ]

    def make_caches(self) -> list[FullCache]:
        return [FullCache()]


def tokenizer(*, special: bool, template: str = TEMPLATE) -> FastTokenizer:
    """One token a byte, the turns' marks, and the thinking marks: special or plain text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Library(models.BPE({text: index for index, text in enumerate(alphabet)}, []))
    library.decoder = decoders.ByteLevel()
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    turns = ["<|im_start|>", "<|im_end|>"]
    library.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in turns])
    marks = ["<think>", "</think>"]
    library.add_tokens([AddedToken(text, normalized=False, special=special) for text in marks])
    ids = {text: library.token_to_id(text) for text in [*turns, *marks]}
    hidden = [*turns, *(marks if special else [])]
    profile = Profile(
        eos_ids=frozenset({ids["<|im_end|>"]}),
        special_ids=frozenset(ids[text] for text in hidden),
        templates={"default": template},
    )
    return FastTokenizer(library, profile)


@pytest.fixture(params=[False, True], ids=["text", "special"])
def thinker(request: pytest.FixtureRequest, tiny_model: Callable[[str], Loaded]) -> Callable[..., LLM]:
    """Gives a model that answers with ``reply``."""

    def make(reply: str = REPLY, template: str = TEMPLATE) -> LLM:
        words = tokenizer(special=request.param, template=template)
        ids = [*words.encode(reply), *words.eos_ids]
        model = Script(ids, words.vocab_size)
        return LLM(
            replace(
                tiny_model("llama"),
                model=model,
                spec=None,
                tokenizer=words,
                vocab=words.vocab_size,
                stop_ids=words.stop_ids,
                max_context=4096,
            )
        )

    return make


def test_the_thought_is_not_in_the_text(thinker: Callable[..., LLM]) -> None:
    llm = thinker()
    reply = llm.generate("2 + 2?")
    assert (reply.text, reply.reasoning, reply.finish_reason) == (ANSWER, THOUGHT.lstrip("\n"), "stop")
    assert reply.tokens == [*llm.tokenizer.encode(REPLY), *llm.tokenizer.eos_ids]
    assert reply.metrics.thinking_tokens == len(THOUGHT) + 2  # its marks count
    assert 0 < reply.metrics.thinking_s < reply.metrics.decode_s


def test_each_token_carries_its_part(thinker: Callable[..., LLM]) -> None:
    events = [event for event in thinker().stream("2 + 2?") if isinstance(event, Token | Done)]
    assert not any(event.text and event.thought for event in events)
    kinds = "".join("t" if event.thought else "a" if event.text else "" for event in events)
    assert kinds == "t" * (len(THOUGHT) - 1) + "a" * len(ANSWER)


def test_without_a_template_and_after_ids_all_is_text(thinker: Callable[..., LLM]) -> None:
    llm = thinker()
    expected = llm.tokenizer.decode(llm.tokenizer.encode(REPLY), skip_special_tokens=True)
    for reply in (llm.generate("2 + 2?", raw=True), llm.generate(llm.encode("2 + 2?"))):
        assert (reply.text, reply.reasoning) == (expected, "")
        assert reply.metrics.thinking_tokens == 0


def test_a_template_that_opens_the_thought_itself(thinker: Callable[..., LLM]) -> None:
    llm = thinker(
        REPLY.removeprefix("<think>\n"),
        TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"),
    )
    reply = llm.generate("2 + 2?")
    assert (reply.text, reply.reasoning) == (ANSWER, THOUGHT.lstrip("\n"))


def test_a_reply_cut_while_thinking_has_no_text(thinker: Callable[..., LLM]) -> None:
    reply = thinker().generate("2 + 2?", max_tokens=8)  # thoughts count
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", "Is it ", "length")
    assert len(reply.tokens) == 8


@pytest.mark.parametrize(
    ("stop", "text", "reasoning"),
    [
        (("five",), "", "Is it "),
        (("four.",), "", "Is it five? No: "),
        (("is four",), "It ", THOUGHT.lstrip("\n")),
    ],
)
def test_stop_strings_work_in_thoughts_and_answers(
    thinker: Callable[..., LLM], stop: tuple[str, ...], text: str, reasoning: str
) -> None:
    reply = thinker().generate("2 + 2?", stop=stop)
    assert (reply.text, reply.reasoning, reply.finish_reason) == (text, reasoning, "stop")


def test_a_stop_string_may_be_a_mark_that_is_text(tiny_model: Callable[[str], Loaded]) -> None:
    words = tokenizer(special=False)
    loaded = replace(
        tiny_model("llama"),
        model=Script([*words.encode(REPLY), *words.eos_ids], words.vocab_size),
        tokenizer=words,
        vocab=words.vocab_size,
        spec=None,
    )
    reply = LLM(loaded).generate("2 + 2?", stop="</think>")
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", THOUGHT.lstrip("\n"), "stop")


def test_a_mark_that_never_completes_is_text(thinker: Callable[..., LLM]) -> None:
    reply = thinker("4 < 5 <thin").generate("2 + 2?")
    assert (reply.text, reply.reasoning) == ("4 < 5 <thin", "")


def test_a_chat_keeps_the_thought_apart(thinker: Callable[..., LLM]) -> None:
    chat = thinker().chat()
    chat.send("2 + 2?")
    assert (chat.messages[-1].text, chat.messages[-1].reasoning) == (ANSWER, THOUGHT.lstrip("\n"))
    assert chat.send("Sure?").text == ANSWER


def test_the_command_prints_the_answer_only(
    thinker: Callable[..., LLM],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    llm = thinker()
    monkeypatch.setattr("macllm.cli.loading.load", lambda *asked: llm)
    assert main(["generate", "thinker", "-p", "2 + 2?"]) == 0
    assert capsys.readouterr().out == f"{ANSWER}\n"
    assert main(["generate", "thinker", "-p", "2 + 2?", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["text"], result["reasoning"]) == (ANSWER, THOUGHT.lstrip("\n"))
    assert result["metrics"]["thinking_tokens"] == len(THOUGHT) + 2
    assert main(["generate", "thinker", "-p", "2 + 2?", "--json", "--raw"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert ANSWER in result["text"]
    assert result["reasoning"] == ""


def test_the_engine_says_whether_a_model_thinks(
    thinker: Callable[..., LLM], tiny_model: Callable[[str], Loaded]
) -> None:
    loaded = thinker().loaded
    assert (ready(loaded).thinks, ready(loaded).template) == (True, "model")
    plain = tiny_model("llama")
    assert (ready(plain).thinks, ready(plain).template, ready(plain).native) == (False, "none", True)


def test_reasoning_is_ignored_without_a_tokenizer(tiny_model: Callable[[str], Loaded]) -> None:
    loaded = tiny_model("llama")
    options = Options(limits=Limits(max_tokens=4, ignore_eos=True))
    plain = collect(generate(loaded, Session(loaded.model), [1, 2, 3], options))
    words = tokenizer(special=True)
    options = replace(options, reasoning=reasoning_of(words, []))
    assert collect(generate(loaded, Session(loaded.model), [1, 2, 3], options)).tokens == plain.tokens
