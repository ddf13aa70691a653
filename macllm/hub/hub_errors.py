"""Turns what the hub's client raises into one sentence with a remedy."""

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from macllm.errors import DownloadError, MacllmError, SourceError
from macllm.hub.source import DEFAULT_REVISION, HubSource

RESUME = "run the same command again, which resumes"


@contextmanager
def explained(source: HubSource) -> Iterator[None]:
    """Raises SourceError for what the user can correct, DownloadError for what may pass."""
    import httpx2
    from huggingface_hub import errors as hub

    try:
        yield
    except MacllmError:
        raise
    except (
        hub.RevisionResolutionError,
        hub.LocalEntryNotFoundError,
        hub.OfflineModeIsEnabled,
        httpx2.TransportError,
    ) as error:
        raise unreachable(source, error) from error
    except hub.HfHubHTTPError as error:
        raise _answered(source, error) from error
    except hub.HFValidationError as error:
        raise SourceError(f"'{source}' does not name a repository of the hub; give org/name") from error
    except (hub.FileMetadataError, json.JSONDecodeError, httpx2.InvalidURL, httpx2.DecodingError) as error:
        raise not_a_hub(source) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DownloadError(
            f"{source}: the disk of the cache is full; free some space and {RESUME}"
        ) from error


def not_a_hub(source: HubSource) -> DownloadError:
    """Something answered that does not speak the hub's API."""
    return DownloadError(
        f"{source}: {_hub()} does not answer as a Hugging Face hub does; check HF_ENDPOINT, a proxy or a login page of"
        " the network"
    )


def unreachable(source: HubSource, error: BaseException) -> DownloadError:
    """No connection, and no complete copy on this machine."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return DownloadError(
            f"{source} is not complete on this machine and HF_HUB_OFFLINE forbids fetching it; unset it, or name an"
            " installed model (see `macllm list`)"
        )
    cause = (
        error.__cause__ if type(error).__name__ == "RevisionResolutionError" and error.__cause__ else error
    )
    reason = re.sub(r"\[Errno -?\d+\] ", "", " ".join(str(cause).split())) or type(cause).__name__
    return DownloadError(
        f"{source}: {_hub()} cannot be reached ({reason}); check the connection and {RESUME}"
    )


def _answered(source: HubSource, error: Exception) -> MacllmError:
    from huggingface_hub import errors as hub

    response = getattr(error, "response", None)
    code = response.status_code if response is not None else 0
    if isinstance(error, hub.GatedRepoError):
        return SourceError(
            f"{source.repo} is gated: accept its terms at {_hub()}/{source.repo}, then log in with `hf auth login`"
            " or set HF_TOKEN"
        )
    if isinstance(error, hub.DisabledRepoError):
        return SourceError(f"{source.repo} was disabled by the hub; choose another repository of the model")
    if isinstance(error, hub.RepositoryNotFoundError):
        return SourceError(
            f"{source.repo} does not exist on {_hub()}, or it is private; check the spelling, or log in with"
            " `hf auth login` or HF_TOKEN if it is yours"
        )
    if isinstance(error, hub.RevisionNotFoundError):
        wanted = source.revision or DEFAULT_REVISION
        return SourceError(
            f"{source.repo} has no revision '{wanted}'; give a branch, a tag or a commit of it"
        )
    if isinstance(error, hub.EntryNotFoundError):
        return SourceError(
            f"{source}: a file of it is gone from the hub; check the name at {_hub()}/{source.repo}"
        )
    if code in (401, 403):
        return SourceError(
            f"{source.repo}: the hub refused the token ({code}); log in again with `hf auth login`, or set an HF_TOKEN"
            " that may read it"
        )
    if code == 429:
        return DownloadError(f"{source}: the hub limits the rate of requests; wait some minutes and {RESUME}")
    return DownloadError(f"{source}: {_hub()} answered {code or 'nothing'}; later {RESUME}")


def _hub() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT
