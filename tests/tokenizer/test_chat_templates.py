"""Chat templates: the text transformers renders, one BOS, the right stops, and nothing leaves the sandbox."""

from datetime import datetime
from typing import Any

import pytest
from template_samples import CHATML, GEMMA, LLAMA3, MISTRAL, QWEN3, SAMPLES, VISION
from tokenizers import AddedToken, Tokenizer, processors

from macllm.errors import TokenizerError
from macllm.tokenizer.base import Profile
from macllm.tokenizer.fast import FastTokenizer
from macllm.tokenizer.messages import Message, to_messages
from macllm.tokenizer.template import ChatTemplate, Rendering

USER = {"role": "user", "content": '  What\'s <2 & "3"?\n'}
REPLY = {"role": "assistant", "content": " é 🦙 "}
SYSTEM = {"role": "system", "content": "Be brief."}
TALKS: dict[str, list[dict[str, Any]]] = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "long": [USER, REPLY, USER, REPLY, USER],
    "ends with a reply": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"}],
    "reasoning": [USER, {"role": "assistant", "content": "yes", "reasoning_content": "hm"}],
    "tool": [
        USER,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": "é<1>"}}}],
        },
        {"role": "tool", "content": "3", "name": "add"},
    ],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": 'Adds <two> numbers, "quoted" & é',
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
        },
    }
]
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


def theirs(source: str, talk: list[dict[str, Any]], **options: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template(conversations=[talk], chat_template=source, **NAMES, **options)
    text: str = rendered[0]
    return text


def model(
    source: str | None, *, tokens: tuple[str, ...] = (), bos: str | None = None, adds_bos: bool = False
) -> FastTokenizer:
    """A byte-level tokenizer with these special tokens and this template."""
    from tiny_tokenizers import train_byte_level

    library = train_byte_level()
    library.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])
    if adds_bos and bos is not None:
        given = library.token_to_id(bos)
        library.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], special_tokens=[(bos, given)]
        )
    special = frozenset(token for token, added in library.get_added_tokens_decoder().items() if added.special)
    return FastTokenizer(
        library,
        Profile(
            bos_id=library.token_to_id(bos) if bos else None,
            special_ids=special,
            special_tokens={"bos_token": bos} if bos else {},
            templates={"default": source} if source is not None else {},
        ),
    )


def rendered(source: str, talk: Any, **options: Any) -> str:
    rendering = Rendering(special_tokens=NAMES, **options)
    return ChatTemplate(source).render(to_messages(talk), rendering)


SAME = [(name, talk) for name in ("chatml", "llama3", "qwen3") for talk in TALKS]
SAME += [("gemma", talk) for talk in ("one", "long", "ends with a reply")]
SAME += [("mistral", talk) for talk in ("one", "long", "tool")]


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize(("name", "talk"), SAME)
def test_transformers_renders_the_same(name: str, talk: str, tools: Any, prompt: bool) -> None:
    variables = {"date_string": "1 Jan 2025", "enable_thinking": False}
    expected = theirs(SAMPLES[name], TALKS[talk], tools=tools, add_generation_prompt=prompt, **variables)
    found = rendered(
        SAMPLES[name], TALKS[talk], tools=tools, add_generation_prompt=prompt, variables=variables
    )
    assert found == expected


@pytest.mark.parametrize("content", ["The answer is", "The answer is  ", "  two\nlines\n"])
@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral", "qwen3"])
def test_an_open_last_message_is_what_transformers_leaves(name: str, content: str) -> None:
    talk = [USER, {"role": "assistant", "content": content}]
    variables = {"date_string": "1 Jan 2025"}
    ours = ChatTemplate(SAMPLES[name]).render(
        to_messages(talk), Rendering(special_tokens=NAMES, variables=variables), continue_final=True
    )
    assert ours == theirs(SAMPLES[name], talk, continue_final_message=True, **variables)
    assert ours.endswith(content.strip() if name in ("llama3", "gemma") else content)


def test_a_message_left_out_cannot_be_continued() -> None:
    with pytest.raises(TokenizerError, match="leaves out the last message"):
        ChatTemplate("nothing").render(to_messages("x"), Rendering(), continue_final=True)


@pytest.mark.parametrize("source", [GEMMA, MISTRAL])
def test_a_system_text_without_a_place_goes_into_the_first_user_message(source: str) -> None:
    """Gemma's kind refuses the role, this Mistral's drops it without a word."""
    moved = rendered(source, [SYSTEM, {"role": "user", "content": "Hi"}])
    assert moved == rendered(source, [{"role": "user", "content": "Be brief.\n\nHi"}])
    assert "Be brief." in moved


def test_a_refusal_for_another_reason_is_told() -> None:
    for talk in ([USER, USER], [SYSTEM, USER, USER]):
        with pytest.raises(TokenizerError, match="it refuses these messages: "):
            rendered(GEMMA, talk)


def test_a_template_that_wants_parts_gets_them() -> None:
    text = rendered(VISION, [SYSTEM, USER])
    assert text == theirs(
        VISION,
        [
            {**message, "content": [{"type": "text", "text": message["content"]}]}
            for message in (SYSTEM, USER)
        ],
        add_generation_prompt=True,
    )
    assert "Be brief." in text and "What's" in text


def test_the_developer_role_is_the_system_role_unless_the_template_knows_it() -> None:
    talk = [{"role": "developer", "content": "x"}, USER]
    assert rendered(CHATML, talk).startswith("<|im_start|>system\nx<|im_end|>")
    assert rendered("{# developer #}" + CHATML, talk).count("<|im_start|>developer\nx") == 1


def test_tools_without_the_wrapper_get_it() -> None:
    bare = [TOOLS[0]["function"]]
    assert rendered(QWEN3, [USER], tools=bare) == rendered(QWEN3, [USER], tools=TOOLS)
    with pytest.raises(TokenizerError, match=r"tools\[0\]: .* is not a tool"):
        rendered(QWEN3, [USER], tools=[{"x": 1}])


def test_the_date_is_the_callers() -> None:
    now = datetime(2031, 2, 3)
    assert "Today: 03 Feb 2031" in rendered(LLAMA3, [USER], now=now)
    assert f"Today: {datetime.now():%d %b %Y}" in rendered(LLAMA3, [USER])


def test_variables_reach_the_template() -> None:
    tokenizer = model(QWEN3)
    assert tokenizer.render("Hi", enable_thinking=False).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.render("Hi", enable_thinking=True).endswith("assistant\n")


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ strftime_now.__closure__[0].cell_contents }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ ''|attr('__class__') }}{{ ''.__class__.__name__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{% set x = messages.append(1) %}",
    "{{ dict.__subclasses__() }}",
    "{{ namespace.__init__.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_leaves_the_sandbox(source: str) -> None:
    with pytest.raises(TokenizerError, match=r"^chat template: [^\n]*$"):
        rendered(source, [USER])


BROKEN = [
    ("{% for %}", r"line 1: .*; correct it"),
    ("a\n{{ x", r"line 2: "),
    ("{{ 1 / 0 }}", "failed on these messages"),
    ("{{ messages[0].content + 1 }}", "failed on these messages"),
    ("{{ nothing.here }}", "'nothing' is undefined"),
    ("{{ messages | nosuchfilter }}", "nosuchfilter"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "does not end"),
    ("{% for i in range(10000000000) %}x{% endfor %}", "failed on these messages"),
    ("{{ strftime_now(3) }}", "failed on these messages"),
]


@pytest.mark.parametrize(("source", "message"), BROKEN)
def test_a_broken_template_is_told_in_one_sentence(source: str, message: str) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        rendered(source, [USER])
    assert str(caught.value).startswith("chat template: ") and "\n" not in str(caught.value)


def test_what_cannot_be_rendered_is_refused() -> None:
    with pytest.raises(TokenizerError, match="an empty list has nothing to render"):
        rendered(CHATML, [])
    with pytest.raises(TokenizerError, match="a variable of type object is not supported"):
        rendered(CHATML, [USER], variables={"x": object()})


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("writes_bos", [True, False])
def test_bos_stands_once_where_the_model_wants_it(adds_bos: bool, writes_bos: bool) -> None:
    source = ("{{ bos_token }}" if writes_bos else "") + CHATML
    tokenizer = model(source, tokens=("<s>",), bos="<s>", adds_bos=adds_bos)
    ids = tokenizer.encode_chat("Hi")
    assert tokenizer.adds_bos is adds_bos
    assert ids.count(tokenizer.bos_id or -1) == (1 if adds_bos or writes_bos else 0)
    assert (
        tokenizer.decode(ids, skip_special_tokens=True) == "system\nYou are helpful.\nuser\nHi\nassistant\n"
    )


TURN_TOKENS = (
    "<s>",
    "</s>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|return|>",
    "<|user|>",
)
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{{ '<|return|>' if m.role == 'assistant' and loop.last else '<|end|>' }}{% endfor %}"
)
GLM = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
PHI = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
STOPS = [
    (CHATML, {"<|im_end|>"}),
    (LLAMA3, {"<|eot_id|>"}),
    (LLAMA3 + "{# <|eom_id|> after a call #}", {"<|eot_id|>", "<|eom_id|>"}),
    (GEMMA, {"<end_of_turn>"}),
    (PHI, {"<|end|>"}),
    (HARMONY, {"<|return|>"}),  # its <|end|> ends a message inside the turn
    (GLM, {"<|user|>"}),  # nothing ends the turn but the next one's start
    ("{% for m in messages %}{{ m.content }}{{ '</s>' if m.role == 'assistant' }}{% endfor %}", {"</s>"}),
    ("{{ raise_exception('never') }}", set()),
    ("no messages", set()),
    ("{% broken", set()),
]


@pytest.mark.parametrize(("source", "expected"), STOPS)
def test_what_ends_a_turn_is_found_in_the_template(source: str, expected: set[str]) -> None:
    tokenizer = model(source, tokens=TURN_TOKENS, bos="<s>")
    assert {tokenizer.token_text(token) for token in tokenizer.stop_ids} == expected


def test_end_tokens_that_are_ordinary_text_do_not_stop() -> None:
    assert model(GEMMA).stop_ids == frozenset()  # this vocabulary has no <end_of_turn>


def test_without_a_template() -> None:
    chatml = model(None)
    assert (chatml.template_origin, chatml.chat_template) == ("chatml", None)
    empty = model(" \n")
    assert (empty.template_origin, empty.chat_template) == ("chatml", None)
    talk = [SYSTEM, {"role": "user", "content": "Hi"}]
    assert chatml.render(talk) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert {chatml.token_text(token) for token in chatml.stop_ids} == {"<|im_end|>"}
    library = Tokenizer.from_str('{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}')
    plain = FastTokenizer(library, Profile())
    assert plain.template_origin == "plain" and plain.stop_ids == frozenset()
    assert plain.render(talk) == "Be brief.\n\nUser: Hi\nAssistant:"
    talk = [*talk, {"role": "assistant", "content": "Hel"}]
    assert plain.render(talk, continue_final=True) == "Be brief.\n\nUser: Hi\nAssistant: Hel"


def test_a_tool_call_may_come_as_json_text() -> None:
    """OpenAI's API has arguments as text; templates write objects."""
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": "é<1>"}'}}
    as_text = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert rendered(QWEN3, as_text) == rendered(QWEN3, TALKS["tool"][:2])


def test_a_template_cannot_change_the_callers_data() -> None:
    tools = [{"name": "f", "parameters": {"a": [1]}}]
    with pytest.raises(TokenizerError, match="sandbox"):
        rendered("{{ tools[0].function.parameters.a.append(2) }}", [USER], tools=tools)
    assert tools == [{"name": "f", "parameters": {"a": [1]}}]
    assert rendered(CHATML, [Message.of("user", "x")]) == rendered(CHATML, "x")
