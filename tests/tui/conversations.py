"""What is said in the pictures, and the recordings of it: ``python tests/tui/conversations.py`` writes them again."""

from pathlib import Path

from telling import GEMMA, QWEN, Telling

from macllm.engine.events import Failed
from macllm.tokenizer.messages import Message

RECORDINGS = Path(__file__).parent / "recordings"

THOUGHT = """The user wants multi-head latent attention, briefly. The point is the cache: keys and values are \
rebuilt from one small vector per token.

I should show the two projections, and say what is stored."""

MLA = """**Multi-head latent attention** keeps one small vector per token instead of all keys and values, and \
rebuilds them when they are read.

```python
def project(self, x):
    latent = self.norm(self.kv_a(x))      # (B, L, 512)
    k, v = self.kv_b(latent).split(2)     # rebuilt, never stored
    return latent, k, v
```

Three things follow:

1. The cache is *much* smaller, so longer chats fit.
2. Decoding reads less memory, and that is what it waits for.
3. Prefill costs one more matrix product."""

SAVING = """At 32k tokens, for a model with 32 layers and 8 key-value heads of 128:

| what is kept | bytes a token | at 32k |
| --- | ---: | ---: |
| keys and values | 131,072 | 4.3 GB |
| latent, 512 + 64 | 36,864 | 1.2 GB |

That is **28 %** of it. Where the weights take 4.6 GB, this is what lets the chat stay on the machine:

- no swapping at the end of a long evening,
- room for a second model,
- and `ctx 32k` instead of 8k."""

CRASH = "the engine was killed by the system, most likely out of memory"


def conversation() -> Telling:
    """Two questions with everything that a reply can hold."""
    telling = Telling().load()
    telling.say("Explain MLA, with the projection in code", MLA, thought=THOUGHT, drafted=4)
    return telling.say("How much memory does it save at 32k tokens?", SAVING)


def crash() -> Telling:
    """The engine dies in the middle of the second reply."""
    telling = Telling().load()
    telling.say("What is a latent vector?", "A short list of numbers that *stands for* a longer one.")
    return telling.say("And how is it trained?", SAVING[:180], ends=Failed(CRASH, 1, "EngineDied"))


def comparison() -> Telling:
    """Two models on one prompt."""
    telling = Telling().load()
    asked = [Message.of("user", "What is a latent vector, in one sentence?")]
    answers = (
        (QWEN, "A latent vector is a **compressed** list of numbers from which the full one can be rebuilt."),
        (GEMMA, "It is a point in a smaller space that *stands for* something larger."),
    )
    for model, answer in answers:
        telling.load(model).generate(asked, answer, session="")
    return telling


if __name__ == "__main__":
    for tell in (conversation, crash, comparison):
        tell().write(RECORDINGS / f"{tell.__name__}.jsonl")
