"""What the model answers to prompts of the validation rows, as it stands: greedy, so that only learning changes it."""

from collections.abc import Iterator, Sequence

from macllm.engine.events import Done, Token
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded
from macllm.engine.request import Limits, Sampling
from macllm.engine.session import Session
from macllm.engine.training_events import Sample
from macllm.tune.examples import Example

TOKENS = 64  # of an answer
_TEXT_SHARE = 3  # of a text without a prompt, what is given: a third


def sampled(loaded: Loaded, examples: Sequence[Example], step: int) -> Iterator[Sample]:
    """An answer to the prompt of each example."""
    tokenizer = loaded.require_tokenizer()
    for example in examples:
        given = example.prompt if example.prompt > 1 else max(1, len(example) // _TEXT_SHARE)
        ids = example.ids[:given].tolist()
        options = Options(Sampling(), Limits(max_tokens=TOKENS))
        events = generate(loaded, Session(loaded.model), ids, options)
        text = "".join(event.text for event in events if isinstance(event, Token | Done))
        yield Sample(step, tokenizer.decode(ids, skip_special_tokens=True), text)
