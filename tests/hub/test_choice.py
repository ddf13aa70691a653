"""Which files of a repository are fetched."""

import pytest

from macllm.errors import SourceError
from macllm.hub.choice import RemoteFile, choose
from macllm.hub.source import HubSource

REPO = HubSource("org/model")


def files(*paths):
    return [RemoteFile(path, 100 + number, f"{number:040x}") for number, path in enumerate(paths)]


def chosen(source, *paths):
    choice = choose(source, files(*paths))
    return {file.path for file in choice.files}, choice.gguf


def test_weights_and_companions_only():
    got, gguf = chosen(
        REPO,
        *("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        *(
            "model.safetensors.index.json",
            "tokenizer.model",
            "merges.txt",
            "chat_template.jinja",
            "o200k.tiktoken",
        ),
        *(
            "additional_chat_templates/rag.jinja",
            "consolidated.safetensors",
            "original/params.json",
            "run.py",
        ),
        *("onnx/model.onnx", "pytorch_model.bin", "image.png", "metal/model.bin", ".gitattributes"),
    )
    assert gguf is None
    assert got == {
        *("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        *(
            "model.safetensors.index.json",
            "tokenizer.model",
            "merges.txt",
            "chat_template.jinja",
            "o200k.tiktoken",
        ),
        "additional_chat_templates/rag.jinja",
    }


def test_other_names_of_weights_are_taken_where_there_is_no_usual_one():
    assert chosen(REPO, "config.json", "weights.00.safetensors")[0] == {
        "config.json",
        "weights.00.safetensors",
    }


def test_the_only_gguf_is_meant():
    paths = ("m-Q4_0.gguf", "mmproj-f16.gguf", "m.imatrix.gguf", "README.md")
    assert chosen(REPO, *paths) == ({"m-Q4_0.gguf"}, "m-Q4_0.gguf")


def test_all_parts_of_a_split_gguf_come():
    parts = {f"Q8/m-{number:05d}-of-00003.gguf" for number in (1, 2, 3)}
    assert chosen(REPO, *sorted(parts)) == (parts, "Q8/m-00001-of-00003.gguf")
    with pytest.raises(SourceError, match=r"lacks Q8/m-00002-of-00003.gguf"):
        chosen(REPO, "Q8/m-00001-of-00003.gguf", "Q8/m-00003-of-00003.gguf")


def test_a_quantization_is_a_whole_word():
    paths = ("m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-IQ4_NL.gguf", "m-Q4_0.gguf")
    assert chosen(HubSource("o/m", quant="q4_k_m"), *paths)[1] == "m-Q4_K_M.gguf"
    with pytest.raises(SourceError, match=r"no GGUF of the quantization 'Q4_K' \(it has m-Q4_K_M.gguf"):
        chosen(HubSource("o/m", quant="Q4_K"), *paths)
    with pytest.raises(SourceError, match="no GGUF of the quantization 'NL'"):
        chosen(HubSource("o/m", quant="NL"), "m-IQ4NL.gguf")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ("a-Q4_K_M.gguf", "a-Q8_0.gguf"),
            r"has 2 GGUF files \(a-Q4_K_M.gguf, a-Q8_0.gguf\); name one.*a-Q4_K_M.gguf$",
        ),
        (("config.json", "pytorch_model.bin"), "only as pickles .* never loaded"),
        (("config.json", "weights.pth"), "only as pickles"),
        (("README.md",), "neither safetensors nor GGUF"),
        ((), "neither safetensors nor GGUF"),
    ],
)
def test_what_cannot_be_used_is_refused(paths, message):
    with pytest.raises(SourceError, match=message):
        chosen(REPO, *paths)
