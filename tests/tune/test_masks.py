"""What is learned from a conversation is the assistant's text with the token that ends it, for every template."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from templated import CHATML, MISTRAL3, byte_level, templated
from tokenizers import normalizers

from macllm.tokenizer import Tokenizer, from_gguf_metadata, load_tokenizer
from macllm.tokenizer.template import PLAIN
from macllm.tune import examples
from macllm.tune.align import encode_spans
from macllm.tune.examples import Example, ExampleSettings, Learn, examples_of, pieces
from macllm.tune.schema import RowError, read_row

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
LONG = 4096


def talk(*turns: str, system: str | None = None) -> list[dict[str, Any]]:
    """Messages of a user and an assistant in turn."""
    roles = (USER, ASSISTANT)
    told = [{"role": roles[index % 2], "content": text} for index, text in enumerate(turns)]
    return [*([{"role": SYSTEM, "content": system}] if system else []), *told]


def made(tokenizer: Tokenizer, row: Any, *, learn: Learn = "turns", limit: int = LONG) -> tuple[Example, ...]:
    settings = ExampleSettings(limit, learn, "2026-01-31")
    row = row if isinstance(row, dict) else {"messages": row}
    return examples_of(read_row(json.dumps(row)), "data.jsonl:1", tokenizer, settings)


def learned(tokenizer: Tokenizer, row: Any, *, learn: Learn = "turns") -> list[str]:
    (example,) = made(tokenizer, row, learn=learn)
    return [text for text, is_learned in pieces(tokenizer, example) if is_learned]


THOUGHT = "<think>\nhm\n</think>\n\n"
TWO = talk("Hi", "Hello é", "And 2+2?", "  It is 4.")
TIDY = talk("Hi", "Hello é", "And 2+2?", "It is 4.")


@pytest.mark.parametrize(
    ("kind", "turns"),
    [
        ("chatml", ["Hello é<|im_end|>", "  It is 4.<|im_end|>"]),
        ("vision", ["Hello é<|im_end|>", "  It is 4.<|im_end|>"]),
        ("llama3", ["Hello é<|eot_id|>", "It is 4.<|eot_id|>"]),
        ("gemma", ["Hello é<end_of_turn>", "It is 4.<end_of_turn>"]),
        ("mistral", [" Hello é</s>", "   It is 4.</s>"]),
        ("mistral3", [" Hello é</s>", " It is 4.</s>"]),
        ("qwen3", ["Hello é<|im_end|>", "  It is 4.<|im_end|>"]),
        ("qwen3-full", ["Hello é<|im_end|>", "<think>\n\n</think>\n\n  It is 4.<|im_end|>"]),
        ("r1", ["Hello é<|eos|>", "  It is 4.<|eos|>"]),
        ("glm", ["Hello é<|user|>", "  It is 4.<|endoftext|>"]),
        (
            "harmony",
            ["<|channel|>final<|message|>Hello é<|end|>", "<|channel|>final<|message|>  It is 4.<|return|>"],
        ),
        ("phi3", ["Hello é<|end|>", "It is 4.<|end|>"]),
    ],
)
def test_every_turn_is_learned_with_its_end(kind: str, turns: list[str]) -> None:
    tokenizer = templated(kind)
    if kind == "phi3":  # the white space behind its tokens is no token
        turns = [turn.strip() for turn in turns]
    assert learned(tokenizer, TWO) == turns
    assert learned(tokenizer, TWO, learn="last") == turns[-1:]
    system = learned(tokenizer, talk("Hi", "Hello é", "And 2+2?", "  It is 4.", system="Be brief."))
    assert system == turns


@pytest.mark.parametrize("kind", ["chatml", "llama3", "gemma", "mistral", "qwen3-full", "r1", "glm"])
def test_an_example_is_what_the_model_is_given_in_a_chat(kind: str) -> None:
    tokenizer = templated(kind)
    (example,) = made(tokenizer, TIDY)
    (whole,) = made(tokenizer, TIDY, learn="all")
    row = read_row(json.dumps({"messages": TIDY}))
    now = datetime.fromisoformat("2026-01-31")
    ids = tokenizer.encode_chat(row.messages, add_generation_prompt=False, now=now)
    assert whole.ids.tolist()[: len(ids)] == ids
    assert example.ids.tolist() == whole.ids.tolist()[: len(example)]  # nothing is learned behind it
    assert example.learned[-1] and not example.learned[0]
    assert whole.learned.tolist() == [False] + [True] * (len(whole) - 1)


def test_thoughts_of_earlier_turns_are_learned_as_the_template_writes_them() -> None:
    turns = talk("Hi", THOUGHT + "Hello", "2+2?", THOUGHT + "4")
    assert learned(templated("qwen3-full"), turns) == ["Hello<|im_end|>", THOUGHT + "4<|im_end|>"]
    assert learned(templated("qwen3"), turns) == ["Hello<|im_end|>", THOUGHT + "4<|im_end|>"]
    assert learned(templated("r1"), turns) == ["\n\nHello<|eos|>", "\n\n4<|eos|>"]
    assert learned(templated("chatml"), turns) == [
        THOUGHT + "Hello<|im_end|>",
        THOUGHT + "4<|im_end|>",
    ]
    beside = [
        {"role": USER, "content": "Hi"},
        {"role": ASSISTANT, "content": "Hello", "reasoning_content": "hm"},
    ]
    assert learned(templated("qwen3-full"), beside) == [THOUGHT + "Hello<|im_end|>"]
    again = [*beside, *talk("2+2?", "4")]
    assert learned(templated("qwen3-full"), again)[0] == "Hello<|im_end|>"


def test_thoughts_are_learned_where_only_probes_tell() -> None:
    turns = talk("Hi", "Hello", "2+2?", THOUGHT + "4", "3+3?", "6", "4+4?", "8", system="Be brief.")
    turns[-1]["reasoning_content"] = "sum"
    empty = "<think>\n\n</think>\n\n"
    answers = [empty + "Hello", THOUGHT + "4", empty + "6", "<think>\nsum\n</think>\n\n8"]
    assert learned(templated("moving"), turns) == [f"{answer}<|im_end|>" for answer in answers]
    greeting = [{"role": ASSISTANT, "content": "Hello", "reasoning_content": "hm"}, *talk("2+2?", "4")]
    assert learned(templated("moving"), greeting)[0] == "hm\n</think>\n\nHello<|im_end|>"


def test_what_opens_the_next_turn_is_no_end_of_this_one() -> None:
    tokens, mistral = ("<s>", "</s>", "[INST]", "[/INST]"), {"bos": "<s>", "eos": "</s>"}
    last_only = "(eos_token if loop.last else '')"
    past_open = byte_level(MISTRAL3.replace("eos_token", last_only), tokens, **mistral)
    assert learned(past_open, TWO, learn="last") == [" It is 4.</s>"]
    with pytest.raises(
        RowError, match="message 2: where the assistant's turn begins and ends cannot be told"
    ):
        made(past_open, TWO)
    # where nothing ends a turn at all, what opens the next is what a reply stops at
    endless = byte_level(MISTRAL3.replace(" + eos_token", ""), tokens, **mistral)
    assert learned(endless, TWO) == [" Hello é[INST]", " It is 4.</s>"]


def test_tool_calls_are_learned_and_their_answers_are_not() -> None:
    call = {"function": {"name": "add", "arguments": {"a": "é"}}}
    turns = [
        {"role": USER, "content": "2+2?"},
        {"role": ASSISTANT, "content": "", "reasoning_content": "sum", "tool_calls": [call]},
        {"role": "tool", "content": "4"},
        {"role": ASSISTANT, "content": "It is 4."},
        *talk("Thanks", "Welcome"),
    ]
    text = '\n<tool_call>\n{"name": "add", "arguments": {"a": "é"}}\n</tool_call><|im_end|>'
    assert learned(templated("qwen3-full"), turns[:4]) == [
        "<think>\nsum\n</think>\n\n" + text,
        "<think>\n\n</think>\n\nIt is 4.<|im_end|>",
    ]
    # with another question behind it, neither thought is written
    assert learned(templated("qwen3-full"), turns) == [
        text,
        "It is 4.<|im_end|>",
        "<think>\n\n</think>\n\nWelcome<|im_end|>",
    ]


def test_an_assistant_that_says_nothing_teaches_nothing() -> None:
    assert learned(templated("chatml"), talk("Hi", "", "Hi?", "Hello")) == ["Hello<|im_end|>"]


def test_without_a_template_a_conversation_ends_with_the_end_of_text() -> None:
    plain = byte_level(PLAIN, ("</s>",), eos="</s>")
    assert learned(plain, TWO) == [" Hello é\n", "   It is 4.\n</s>"]
    assert learned(plain, [*TWO, *talk("Thanks")])[-1] == "   It is 4.\n"


def test_prompts_are_not_learned_from_and_texts_are_whole() -> None:
    chatml = templated("chatml")
    assert learned(chatml, {"prompt": "2+2", "completion": "4"}) == ["4<|im_end|>"]
    prompt = talk("Hi", "Hello", "2+2")
    assert learned(chatml, {"prompt": prompt, "completion": "4"}) == ["4<|im_end|>"]
    (example,) = made(chatml, {"text": "Once upon a time"})
    assert chatml.decode(example.ids.tolist()) == "Once upon a time<|im_end|>"
    assert example.learned.tolist() == [False] + [True] * (len(example) - 1)
    gemma = templated("gemma")
    for text in ("Once", "<bos>Once"):
        (example,) = made(gemma, {"text": text})
        assert gemma.decode(example.ids.tolist()) == "<bos>Once<eos>"


@pytest.mark.parametrize("kind", ["chatml", "gemma", "qwen3-full", "r1"])
def test_a_preference_is_two_examples_with_one_prompt(kind: str) -> None:
    tokenizer = templated(kind)
    end = tokenizer.decode(made(tokenizer, TWO)[0].ids.tolist()[-1:])
    rows = (
        {"prompt": "2+2?", "chosen": "It is 4.", "rejected": "5"},
        {"chosen": talk("2+2?", "It is 4."), "rejected": talk("2+2?", "5")},
    )
    for row in rows:
        chosen, rejected = made(tokenizer, row)
        assert chosen.prompt == rejected.prompt > 0
        assert np.array_equal(chosen.ids[: chosen.prompt], rejected.ids[: rejected.prompt])
        answers = [pieces(tokenizer, each)[-1] for each in (chosen, rejected)]
        assert [text.removeprefix("<think>\n\n</think>\n\n") for text, _ in answers] == [
            "It is 4." + end,
            "5" + end,
        ]
        assert all(is_learned for _, is_learned in answers)
    with pytest.raises(RowError, match="do not answer the same prompt"):
        made(tokenizer, {"chosen": talk("2+2?", "4"), "rejected": talk("3+3?", "5")})


def test_a_row_is_cut_at_the_longest_and_refused_where_nothing_is_left() -> None:
    chatml = templated("chatml")
    (whole,) = made(chatml, TWO)
    (cut,) = made(chatml, TWO, limit=len(whole) - 2)
    assert cut.truncated and not whole.truncated and len(cut) == len(whole) - 2
    assert np.array_equal(cut.ids, whole.ids[:-2]) and np.array_equal(cut.learned, whole.learned[:-2])
    (same,) = made(chatml, [*TWO, {"role": USER, "content": "more " * 99}], limit=len(whole))
    assert not same.truncated and np.array_equal(same.ids, whole.ids)  # no answer was lost
    with pytest.raises(RowError, match=f"within {whole.prompt} tokens: the first answer begins after"):
        made(chatml, TWO, limit=whole.prompt)


@pytest.mark.parametrize("reach", [0, 1, 100])
@pytest.mark.parametrize("kind", ["chatml", "moving", "gemma"])
def test_turns_behind_the_cut_need_not_be_found(
    monkeypatch: pytest.MonkeyPatch, kind: str, reach: int
) -> None:
    """What is left of a row is the same however far its turns were looked for."""
    turns = talk(*(f"{number}?" if number % 2 == 0 else "so " * (number % 5 + 1) for number in range(40)))
    (whole,) = made(templated(kind), turns)
    monkeypatch.setattr(examples, "_REACH", reach)
    for limit in (whole.prompt + 1, whole.prompt + 2, 60, 77, 200, len(whole) - 1, len(whole)):
        (cut,) = made(templated(kind), turns, limit=limit)
        assert np.array_equal(cut.ids, whole.ids[:limit]) and np.array_equal(
            cut.learned, whole.learned[:limit]
        )
        assert cut.truncated == (limit < len(whole))


def test_what_a_template_refuses_or_cannot_show_is_refused_by_reason() -> None:
    with pytest.raises(RowError, match="Turns must alternate"):
        made(templated("gemma"), [*talk("Hi", "Hello"), {"role": ASSISTANT, "content": "Again"}])
    deaf = byte_level(
        "{% for m in messages %}{{ m.role }}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    with pytest.raises(RowError, match=r"message 2: .*chat template"):
        made(deaf, talk("Hi", "Hello"))
    # each answer written with the number of all messages: no part of the text is the same in two renderings
    odd = byte_level(
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", ("</s>",), eos="</s>"
    )
    with pytest.raises(RowError, match="cannot be told from this model's chat template"):
        made(odd, talk("Hi", "Hello", "2+2", "4"))
    assert made(odd, talk("Hi", "Hello"), learn="all")


def test_a_token_across_the_border_is_cut_as_a_prompt_alone_is() -> None:
    """``Answer:`` and ``: Hello`` could share a token; the prompt's own ids come first, as at generation."""
    tokenizer = byte_level(None)
    text = "in the house"
    for border in range(1, len(text)):
        ids, mask = encode_spans(tokenizer, text, [(border, len(text))])
        assert tokenizer.decode(ids[mask].tolist()) == text[border:]
        assert ids[~mask].tolist() == tokenizer.encode(text[:border])


@pytest.mark.parametrize(
    ("kind", "end", "trims"),
    [
        ("chatml", "<|im_end|>", False),
        ("llama3", "<|eot_id|>", True),
        ("gemma", "<end_of_turn>", True),
        ("r1", "<|eos|>", False),
        ("harmony", "<|end|>", False),
    ],
)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, max_size=6))
def test_any_text_is_found_again(kind: str, end: str, trims: bool, texts: list[str]) -> None:
    turns = [text for text in texts if "<" not in text]
    turns = turns[: len(turns) // 2 * 2]
    answers = [turn.strip() if trims else turn for turn in turns[1::2] if turn.strip()]
    if answers:
        found = learned(templated(kind), talk(*turns))
        found = [text.removeprefix("<|channel|>final<|message|>") for text in found]
        found[-1] = found[-1].replace("<|return|>", end)
        assert found == [answer + end for answer in answers]


def test_what_a_tokenizer_rewrites_is_found_or_refused() -> None:
    turns = talk("cafe\u0301 A", "caf\u00e9 cafe\u0301 I\u0301")
    composed = byte_level(CHATML, normalizer=normalizers.NFC())
    assert learned(composed, turns) == ["caf\u00e9 caf\u00e9 \u00cd<|im_end|>"]
    small = byte_level(CHATML, normalizer=normalizers.Lowercase())
    with pytest.raises(RowError, match="the tokenizer changes this text"):
        learned(small, turns)
    assert made(small, turns, learn="all")


@pytest.mark.parametrize("legacy", [True, False])
def test_sentencepiece_spaces_are_aligned(tmp_path: Path, legacy: bool) -> None:
    """Llama 2's: a space is put before a text, and in its older way behind every special token too."""
    from tiny_tokenizers import train_sentencepiece

    model = train_sentencepiece(tmp_path / "m", control_symbols=["[INST]", "[/INST]"])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model)
    from template_samples import MISTRAL

    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "legacy": legacy,
        "chat_template": MISTRAL,
        "additional_special_tokens": ["[INST]", "[/INST]"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(folder)
    assert [turn.split() for turn in learned(tokenizer, TWO)] == [["Hello", "é</s>"], ["It", "is", "4.</s>"]]


@pytest.mark.starter
def test_the_starter_learns_its_answers(starter_gguf: Path) -> None:
    from macllm.weights.gguf_file import GGUFFile

    tokenizer = from_gguf_metadata(GGUFFile.open(starter_gguf).metadata)
    assert learned(tokenizer, TWO) == ["Hello é<|im_end|>", "  It is 4.<|im_end|>"]
    assert learned(tokenizer, {"text": "Once"})[-1].endswith("<|im_end|>")
