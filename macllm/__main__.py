"""``python -m macllm`` is the ``macllm`` command."""

import sys

from macllm.cli.main import main

sys.exit(main())
