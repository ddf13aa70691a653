"""The generated pages of docs/ about fine-tuning: methods and objectives."""

import re

from docs_parts import NOTE, code, real_spec, table

_METHODS_NOTE = """
`macllm finetune MODEL --data PATH --method METHOD`. Parameters are those that learn of Llama-3.1-8B, at rank 8, 20
virtual tokens and all targets; its weights are 8,030,261,248.
"""
_METHODS = {  # what learns, and on which bases
    "lora": ("two thin factors beside every matrix ([2106.09685](https://arxiv.org/abs/2106.09685))", "all"),
    "qlora": ("`lora`, on packed bases alone ([2305.14314](https://arxiv.org/abs/2305.14314))", "packed"),
    "rslora": (
        "`lora` whose scale shrinks with the root of the rank ([2312.03732](https://arxiv.org/abs/2312.03732))",
        "all",
    ),
    "dora": ("`lora`, and the length of every row ([2402.09353](https://arxiv.org/abs/2402.09353))", "all"),
    "pissa": ("the largest part of every matrix ([2404.02948](https://arxiv.org/abs/2404.02948))", "all"),
    "qalora": (
        "factors of whole quantization groups, folded into biases ([2309.14717](https://arxiv.org/abs/2309.14717))",
        "affine",
    ),
    "full": ("the weights themselves, embeddings, norms and head too", "16-bit, 32-bit"),
    "ia3": (
        "a number for every key, value and feed-forward channel ([2205.05638](https://arxiv.org/abs/2205.05638))",
        "all",
    ),
    "prompt": ("embeddings before every row ([2104.08691](https://arxiv.org/abs/2104.08691))", "all"),
    "prefix": (
        "keys and values of every layer before every row ([2101.00190](https://arxiv.org/abs/2101.00190))",
        "all",
    ),
    "bottleneck": (
        "two small matrices after every block ([1902.00751](https://arxiv.org/abs/1902.00751)), or after "
        "`--targets mlp` alone ([2005.00247](https://arxiv.org/abs/2005.00247))",
        "all",
    ),
}
_METHODS_MORE = """
- Bases: `all` are 16 or 32 bits, affine, mxfp4, mxfp8, nvfp4, nf4 and the blocks of GGUF files. Only `full` changes
  the base. Beside a packed one, gradients are those beside its dequantized matrices.
- Every method starts with the model as it is, to the bit, but for `prompt` and `prefix`: those start as tokens of the
  vocabulary, drawn by the seed. Their tokens have the positions before 0, so that caches hold and count real tokens
  alone. They need models whose layers all attend to all keys and values (no sliding windows, no recurrences), rows
  that are not packed, and plain caches; everything else is refused by name.
- `--loraplus-ratio 16` is LoRA+ ([2402.12354](https://arxiv.org/abs/2402.12354)): the second factor of `lora` and its
  relatives learns that much faster than the first.
- `pissa` keeps the base whole. The first factors are taken off again, `W + s (A B - A0 B0)`, which is the paper's
  residual on any base, exact where it is packed. On disk it is a LoRA of twice the rank, as PEFT converts it.
- `qalora` is a LoRA on disk, too, whose first factor repeats within groups; `macllm.adapters.fold` adds its change to
  the biases of the packed base, which keeps codes and scales.
- `lora`, `qlora`, `rslora`, `dora`, `pissa` and `qalora` are written in mlx-lm's format, and PEFT's on request. The
  others have `adapters.safetensors` with canonical names (`layers.0.mixer.k.ia3_l`), and `fine_tune_type` in
  `adapter_config.json`; PEFT's format is read and written of `ia3` and `prompt`.
"""


def methods_page() -> str:
    """``docs/finetuning-methods.md``: what each method learns, how much it is, and on which bases."""
    from macllm.adapters.method import KINDS
    from macllm.adapters.shapes import parameters
    from macllm.tune.job import method_of
    from macllm.tune.settings import DEFAULTS

    spec = real_spec("llama-3.1-8b")
    rows = []
    for kind in KINDS:
        what, bases = _METHODS[kind]
        rows.append(
            [f"`{kind}`", what, f"{parameters(spec, method_of({**DEFAULTS, 'method': kind})):,}", bases]
        )
    found = table(["method", "what learns", "parameters", "bases"], rows, plain=(0, 1, 3))
    return (
        "\n".join(
            [NOTE, "# Methods of fine-tuning", _METHODS_NOTE, found.rstrip("\n"), _METHODS_MORE]
        ).rstrip()
        + "\n"
    )


_EXAMPLE_ROWS = {
    "messages": '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}',
    "completion": '{"prompt": "What is 2+2?", "completion": "4"}',
    "text": '{"text": "Call me Ishmael."}',
    "preference": '{"prompt": "What is 2+2?", "chosen": "4", "rejected": "It depends."}',
    "labelled": '{"prompt": "What is 2+2?", "completion": "It depends.", "label": false}',
    "prompt": '{"prompt": "What is 2+2?", "answer": "4"}',
}
_OBJECTIVES_NOTE = """
`macllm finetune MODEL --data PATH --objective OBJECTIVE`. Every objective counts rows, pairs or tokens the same however
they are padded and batched, and adds up over `--grad-accumulation-steps`. Rows that it cannot learn from are named by
file and line before a model is loaded.
"""
_OBJECTIVES_MORE = """
- `dpo`, `ipo` and `kto` ask the base how likely it finds each answer, once and before anything is learned. What it says
  is kept in the cache, by the content of the base and of the answers, so a second run begins at once.
- Formulas and names are TRL's. Where a loss has a term of its own for what is chosen (`orpo`, `cpo`), that is the mean
  over the answer's tokens, for every pair; TRL takes it over all tokens of a batch. `ipo` is of means a token.
- `kto` counts a reward from how much the model gained on answers to other prompts: the mean over all rows of a step.
  Which answer goes with which prompt is fixed for a run. Of a preference row, one answer is wanted and the other not.
- Looks at the validation rows tell `rewards/chosen`, `rewards/rejected`, `rewards/accuracies` and `rewards/margins`
  (in `metrics.jsonl`); a margin that grows is what preferring means.
- `--balance 0.01` adds the load-balancing loss of a mixture of experts (arXiv 2101.03961) to any objective, as Hugging
  Face's models have it; validation losses are without it.

## A reward model

`--objective reward` teaches a scalar head beside the adapter. It is kept as `reward_head.safetensors`
(`score.weight`, 1 x D), and used like this, for example as the judge of other answers:

```python
from pathlib import Path

from macllm.tune.reward_model import RewardModel

judge = RewardModel.load(Path("models/base"), Path("adapters/judge"))
asked = {"role": "user", "content": "What is 2+2?"}
good, bad = judge.score([[asked, {"role": "assistant", "content": text}] for text in ("4", "It depends.")])
```

Only differences between answers to one prompt mean something.

## Rows under other names

`--keys question=prompt,answer=completion` reads rows that have keys of their own. `instruction+input=prompt` joins two
texts by a blank line, and `messages=` leaves a key out. A key that a row does not have is told by file and line.
ShareGPT's conversations are read with `--keys conversations=messages`, where they have `from` and `value` alone.

## Data sets of Hugging Face

`--data org/name`, `--data org/name:config` or `--data org/name:config:split` (`org/name::train_sft` without a config)
reads a data set by its name, once `pip install 'macllm[datasets]'` has brought the library. Its splits train,
validation and test become train, valid and test; one that is named is learned from alone. What the library has read is
written down as JSONL in the cache, so that lines which are told can be looked at.
"""


def objectives_page() -> str:
    """``docs/finetuning-objectives.md``: which objective for which rows, and what can be set of it."""
    from macllm.tune.objectives.kinds import KINDS, SPECIAL
    from macllm.tune.settings import SETTINGS

    kinds = []
    for kind in KINDS.values():
        what = re.sub(r"arXiv (\d+\.\d+)", r"[\1](https://arxiv.org/abs/\1)", kind.help)
        beta = [f"`beta` ({kind.beta:g})" if name == "beta" else f"`{name}`" for name in kind.settings]
        kinds.append([f"`{kind.name}`", what, code(*kind.schemas), ", ".join(beta)])
    settings = []
    for setting in SETTINGS:
        if setting.name in SPECIAL:
            readers = code(*(kind.name for kind in KINDS.values() if setting.name in kind.settings))
            settings.append([f"`{setting.name}`", setting.help, setting.write(setting.default), readers])
    rows = [f"`{schema}`:\n\n```json\n{row}\n```\n" for schema, row in _EXAMPLE_ROWS.items()]
    parts = [
        NOTE,
        "# Objectives of fine-tuning",
        _OBJECTIVES_NOTE,
        table(["objective", "what is learned", "rows", "settings (default)"], kinds, plain=range(4)),
        "## Rows\n",
        *rows,
        "A prompt, and each answer, may also be a list of messages; `chosen` and `rejected` may be whole conversations"
        "\nthat begin with the same messages.\n",
        "## Settings\n",
        table(["setting", "what it says", "default", "to"], settings, plain=(0, 1, 3)),
        "## What to know",
        _OBJECTIVES_MORE,
    ]
    return "\n".join(parts).rstrip() + "\n"
