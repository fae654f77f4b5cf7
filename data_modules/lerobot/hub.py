"""LeRobot datasets on the Hugging Face hub, or what its cache on this machine has of them."""

from itertools import product
from pathlib import Path

from actionprior.data import DataError

TAGS = ("v3.0", "v2.1")
"""lerobot tags its datasets with their format; the newest that we read comes first."""


def locate(repo_id: str, videos: bool) -> Path:
    """The folder of a hub dataset, downloaded as far as this machine lacks it.

    Args:
        repo_id: ``user/name``, or ``user/name@revision`` with a branch, tag or commit. Without a
            revision lerobot's home is looked into first, then the newest of ``TAGS`` that the
            repository has is taken, else ``main``. Where the hub cannot be asked, the same are
            looked for in its cache.
        videos: also those; Stage 1 does without.

    Raises:
        DataError: it is neither on this machine nor to be had from the hub.
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
        except Exception as error:  # whatever keeps the hub from answering
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
    told = " or ".join(repr(revision) for revision in revisions)
    raise DataError(
        f"dataset {name!r} cannot be had from the hub at revision {told}: "
        f"{_advice(reason, HF_LEROBOT_HUB_CACHE)}"
    ) from reason


def _advice(reason: Exception | None, cache: Path) -> str:
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if is_offline_mode():
        return (
            f"HF_HUB_OFFLINE is set, and its cache {cache} does not have all of it; unset it, or "
            "bring the cache from a machine that has downloaded it"
        )
    if isinstance(reason, RevisionNotFoundError):
        return "the repository has no such branch, tag or commit; name another after the @"
    if isinstance(reason, RepositoryNotFoundError):  # as the hub answers to strangers, too
        return "there is none of that name, or it is private or gated; log in with `hf auth login`"
    return f"{reason}; if the network is at fault, try again"
