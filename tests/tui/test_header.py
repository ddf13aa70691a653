"""The top line: model, preset and context; what gives way when it is narrow; when the context is nearly full."""

import pytest
from engine_moments import Shows, lines_of
from rich.cells import cell_len

from macllm_tui.widgets.context_meter import context_meter
from macllm_tui.widgets.header import Header

LONG = "A very long model name that nobody could want 8B Instruct 4bit"


async def header(width: int = 100, **told) -> str:
    app = Shows(Header())
    async with app.run_test(size=(width, 1)) as pilot:
        app.widget.show(**told)
        await pilot.pause()
        return lines_of(app.widget)[0]


async def test_it_shows_all_it_was_told() -> None:
    line = await header(model="Qwen3-8B 4bit", preset="coder", context_tokens=3174, max_context=32768)
    assert line.startswith(" macllm ── Qwen3-8B 4bit ── preset: coder ─")
    assert line.endswith("─ ctx █░░░░░░░ 3.1k/32k")


async def test_without_a_model_it_says_so() -> None:
    line = await header(model="")
    assert "no model" in line and "ctx" not in line and "preset" not in line


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 200])
@pytest.mark.parametrize(
    "model", ["Qwen3-8B 4bit", LONG, "模型模型模型模型模型模型模型模型模型模型模型模型模型"]
)
@pytest.mark.parametrize("used", [3174, 27000, 32000, 40000])
async def test_model_and_context_are_there_at_every_width(width: int, model: str, used: int) -> None:
    line = await header(width, model=model, preset="a preset", context_tokens=used, max_context=32768)
    assert cell_len(line) <= width
    assert model[:5] in line
    assert "k/32k" in line
    assert ("■" in line) == (used >= 32000) and ("▲" in line) == (used == 27000)


@pytest.mark.parametrize(
    ("share", "sign", "word", "style"),
    [
        (0.0, "", "", "$foreground-muted"),
        (0.79, "", "", "$foreground-muted"),
        (0.80, "▲", "filling up", "$warning"),
        (0.94, "▲", "filling up", "$warning"),
        (0.95, "■", "almost full", "$error"),
        (0.999, "■", "almost full", "$error"),
        (1.0, "■", "full", "$error"),
        (1.5, "■", "full", "$error"),
    ],
)
def test_a_filling_context_is_told_by_sign_word_and_colour(share, sign, word, style) -> None:
    meter = context_meter(int(share * 100_000), 100_000)
    assert meter.style == style
    assert meter.texts[0].startswith(f"{sign} {word}".strip() or "ctx")
    assert all(text.startswith(sign) for text in meter.texts)
    lengths = [cell_len(text) for text in meter.texts]
    assert lengths == sorted(lengths, reverse=True)


async def test_telling_the_same_again_draws_nothing() -> None:
    class Counting(Header):
        drawn = 0

        def render(self):
            self.drawn += 1
            return super().render()

    app = Shows(Counting())
    async with app.run_test(size=(80, 1)) as pilot:
        app.widget.show(model="a", context_tokens=1, max_context=10)
        await pilot.pause()
        before = app.widget.drawn
        app.widget.show(model="a", context_tokens=1, max_context=10)
        await pilot.pause()
        assert app.widget.drawn == before
        app.widget.show(model="a", context_tokens=2, max_context=10)
        await pilot.pause()
        assert app.widget.drawn == before + 1
