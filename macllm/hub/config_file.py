"""Fetches a repository's config.json alone, a few kilobytes, so that a model is known before it is downloaded.

It goes to memory, not to the cache: a snapshot that holds only a config would look like a damaged model there.
"""

import json
from typing import Any

from macllm.errors import ConfigError, SourceError
from macllm.hub.http import CONNECT_S
from macllm.hub.hub_errors import explained
from macllm.hub.source import DEFAULT_REVISION, HubSource


def fetch_config(source: HubSource) -> dict[str, Any]:
    """The config of a repository. Raises SourceError, DownloadError or ConfigError in one sentence."""
    with explained(source):
        from huggingface_hub import constants, get_session, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

        if constants.is_offline_mode():
            raise OfflineModeIsEnabled(source.repo)
        url = hf_hub_url(source.repo, "config.json", revision=source.revision or DEFAULT_REVISION)
        headers = build_hf_headers(library_name="macllm")
        response = get_session().get(url, headers=headers, follow_redirects=True, timeout=CONNECT_S)
        try:
            hf_raise_for_status(response)
        except EntryNotFoundError:
            raise SourceError(
                f"{source.repo} has no config.json to explain; pull the model with `macllm pull {source}` first"
            ) from None
        text = response.text
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{source}: its config.json is not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{source}: its config.json is not a JSON object")
    return config
