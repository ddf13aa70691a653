"""The Hugging Face cache that all tools share: what lies in it, and deleting files of it without hurting others."""

from collections.abc import Collection
from pathlib import Path


def repo_folder(repo: str) -> Path:
    """Where the cache keeps ``repo``: blobs, refs and snapshots."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=repo, repo_type="model")


def snapshot_folder(repo: str, commit: str) -> Path:
    """Where the files of one commit lie, present or not."""
    return repo_folder(repo) / "snapshots" / commit


def delete(files: Collection[Path]) -> int:
    """Deletes these snapshot files with the blobs that nothing else uses; returns the bytes freed.

    A snapshot, and then a repository, that is left without files is deleted with it.
    """
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    folder = Path(constants.HF_HUB_CACHE).expanduser()
    try:
        found = scan_cache_dir(folder)
    except CacheNotFound:
        return 0
    wanted = {path.parent.resolve() / path.name for path in files}
    chosen = [
        file
        for repo in found.repos
        for revision in repo.revisions
        for file in revision.files
        if file.file_path.parent.resolve() / file.file_path.name in wanted
    ]
    emptied = [
        revision.commit_hash
        for repo in found.repos
        for revision in repo.revisions
        if revision.files and revision.files <= set(chosen)
    ]
    strategy = found.delete_files(*chosen)
    strategy.execute()
    if emptied:
        scan_cache_dir(folder).delete_revisions(*emptied).execute()
    return strategy.expected_freed_size
