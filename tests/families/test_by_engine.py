"""Every family through the engine: the contract's command without a tokenizer, decoding, and caches that are kept."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import difference, first_variants, reference, tokens

from macllm.cli.main import main
from macllm.engine.events import Prefill, Token
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded, load_model
from macllm.engine.request import Limits
from macllm.engine.session import Session

FIRST = first_variants()
PROMPT = tokens(30, seed=3)


@pytest.mark.parametrize("variant", FIRST)
def test_logits_are_written_for_a_folder_without_a_tokenizer(
    variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = reference(variant)
    ids, out = tmp_path / "ids.json", tmp_path / "logits.npy"
    ids.write_text(json.dumps(PROMPT))
    words = ["generate", str(original.folder), "--raw", "--tokens-in", str(ids), "--max-tokens", "0"]
    assert main([*words, "--logits", str(out), "--all-logits", "--dtype", "float32"]) == 0
    assert difference(np.load(out), original.logits([PROMPT])[0]) < 1e-4


def run(loaded: Loaded, session: Session, prompt: list[int]) -> tuple[list[int], int]:
    """Eight greedy tokens, and how many tokens of the prompt were known already."""
    options = Options(limits=Limits(max_tokens=8, ignore_eos=True), chunk=11)
    events = list(generate(loaded, session, prompt, options))
    reused = next(event.reused for event in events if isinstance(event, Prefill))
    return [event.id for event in events if isinstance(event, Token)], reused


@pytest.mark.parametrize("variant", FIRST)
def test_a_conversation_goes_on_and_goes_back(variant: str) -> None:
    """What a session has kept of the past gives the tokens that a fresh one gives."""
    loaded = load_model(reference(variant).folder, dtype="float32")
    session = Session(loaded.model)
    first, reused = run(loaded, session, PROMPT)
    assert reused == 0
    following = [*PROMPT, *first, *tokens(9, seed=8)]
    for prompt in (following, [*following[:35], *tokens(4, seed=9)]):
        found, reused = run(loaded, session, prompt)
        assert reused >= 30  # all that both have in common
        assert found == run(loaded, Session(loaded.model), prompt)[0]
