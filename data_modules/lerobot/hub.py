"""Download LeRobot datasets from the Hugging Face hub, or find them in its local cache."""

from itertools import product
from pathlib import Path

from actionprior.data import DataError

TAGS = ("v3.0", "v2.1", "v2.0")
"""Tags of supported dataset formats on the hub, newest first. lerobot sets them."""


def locate(repo_id: str, videos: bool) -> Path:
    """Return the folder of a hub dataset, and download missing files.

    Args:
        repo_id: ``user/name``, or ``user/name@revision`` with a branch, tag or commit. Without a
            revision, lerobot's home folder is searched first. Then the repository's newest of
            ``TAGS`` is used, or else ``main``. If the hub cannot be reached, the same revisions
            are searched in its cache.
        videos: Download videos, too. Stage 1 does not need them.

    Raises:
        DataError: The dataset is neither on this machine nor available from the hub.
    """
    from huggingface_hub import HfApi, snapshot_download
    from lerobot.utils.constants import HF_LEROBOT_HOME, HF_LEROBOT_HUB_CACHE

    name, _, asked = repo_id.partition("@")
    home = Path(HF_LEROBOT_HOME) / name
    if not asked and (home / "meta" / "info.json").is_file():
        return home
    revisions, ways = ([asked] if asked else [*TAGS, "main"]), [False, True]
    reason: Exception | None = None
    if not asked:
        try:
            refs = HfApi().list_repo_refs(name, repo_type="dataset")
            tags = {tag.name for tag in refs.tags}
            revisions = [tag for tag in TAGS if tag in tags][:1] or ["main"]
        except Exception as error:  # the hub may fail in many ways; the cache may still help
            reason, ways = error, [True]
    for cached_only, revision in product(ways, revisions):
        try:
            return Path(
                snapshot_download(
                    name,
                    repo_type="dataset",
                    revision=revision,
                    cache_dir=HF_LEROBOT_HUB_CACHE,
                    allow_patterns=["meta/**", "data/**", *(["videos/**"] if videos else [])],
                    local_files_only=cached_only,
                )
            )
        except Exception as error:
            reason = reason or error
    tried = " or ".join(repr(revision) for revision in revisions)
    raise DataError(
        f"dataset {name!r} cannot be loaded from the hub at revision {tried}: "
        f"{_advice(reason, HF_LEROBOT_HUB_CACHE)}"
    ) from reason


def _advice(reason: Exception | None, cache: Path) -> str:
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if is_offline_mode():
        return (
            f"HF_HUB_OFFLINE is set, and the cache {cache} does not hold the whole dataset; unset "
            "it, or copy the cache from a machine that has downloaded the dataset"
        )
    if isinstance(reason, RevisionNotFoundError):
        return "the repository has no such branch, tag or commit; name another after the @"
    if isinstance(reason, RepositoryNotFoundError):  # also raised for private ones without login
        return "the dataset does not exist, or is private or gated; log in with `hf auth login`"
    return f"{reason}; if the network failed, try again"
