"""The prompt and the count beside it share a row: neither hides the other."""

import re
from pathlib import Path

from simulated import opened, shown, until

from macllm_tui.widgets.prompt import PromptCount

TEXT = "Write a Python function that reverses a string, and say how it works."


async def test_a_count_that_grows_hides_no_word(tmp_path: Path) -> None:
    async with opened(tmp_path / "chats.db") as (app, pilot):
        count = app.chat_screen.query_one(PromptCount)
        app.chat_screen.prompt.text = TEXT

        def counted(said: str) -> bool:
            count.update(said)  # again where the engine's own count came after it
            return said in shown(app)

        for said in ("16 tok", "16000000 tok"):
            await until(pilot, lambda said=said: counted(said))
            missing = [word for word in re.findall(r"\w+", TEXT) if not re.search(rf"\b{word}\b", shown(app))]
            assert missing == []
