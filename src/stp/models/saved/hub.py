"""Files from the hub of Hugging Face, or from its cache on this machine."""

import os
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from stp._log import NO_WIDGETS, silence, warn
from stp._settings import settings

HUB = "https://huggingface.co"
REACH_SECONDS = 4.0  # HF_HUB_ETAG_TIMEOUT replaces it
Result = TypeVar("Result")


class OutOfReachError(OSError):
    """The hub did not answer, or not with what was asked for."""


def endpoint() -> str:
    """Return the address of the hub: HF_ENDPOINT if it is set."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def cache_folder() -> Path:
    """Return the folder of downloads: in that of `stp.settings`, or the cache of Hugging Face."""
    from huggingface_hub import constants

    folder = settings.cache_dir
    return Path(constants.HF_HUB_CACHE) if folder is None else folder / "hub"


def is_commit(revision: str) -> bool:
    """Return whether a revision is a commit, which never moves, and no branch or tag."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def is_hub_id(path: str | Path) -> bool:
    """Return whether a path can only be an id on the hub, `owner/name`: there is no such folder."""
    if not isinstance(path, str) or re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path) is None:
        return False
    return not Path(path).parent.exists()


def fetch(hub_id: str, names: Sequence[str], *, revision: str | None = None, remedy: str) -> Path:
    """Return the local path of the first file that the repository has.

    A commit in the cache needs no network. A branch or tag is looked up on the hub; if the hub is
    out of reach, the commit in the cache is used, with a warning.

    Parameters
    ----------
    hub_id
        Id of the repository on the hub, `owner/name`.
    names
        Names of files, the preferred one first.
    revision
        Commit, branch or tag of the repository; by default its main branch.
    remedy
        Advice for the error if neither the hub nor its cache has the file.

    Raises
    ------
    FileNotFoundError
        If neither the hub nor its cache has the file.
    PermissionError
        If the user has to accept the terms of the repository first.
    ValueError
        If `hub_id` is not an id of the hub, or the revision is no name of a branch or tag.
    """
    from huggingface_hub import errors

    _check_id(hub_id)
    _check_revision(revision)
    cached = _find_in_cache(hub_id, names, revision)
    if cached is not None and revision is not None and is_commit(revision):
        return cached
    try:
        return _download_first(hub_id, names, revision)
    except errors.GatedRepoError as error:
        if cached is None:
            raise PermissionError(
                f"the weights of {hub_id} are gated: accept the terms at {HUB}/{hub_id}, log in "
                f"with `hf auth login`, and try again; or {remedy}"
            ) from error
        reason = "its terms are not accepted"
    except OutOfReachError as error:
        reason = str(error)
        if cached is None:
            raise FileNotFoundError(
                f"cannot get {' or '.join(names)} of {hub_id} from the hub or from its cache on "
                f"this machine; {remedy} ({reason})"
            ) from error
    warn(f"{hub_id} is read from the cache, commit {commit_of(cached)}: {reason}")
    return cached


def fetch_folder(
    hub_id: str, names: Sequence[str], *, revision: str | None, remedy: str
) -> tuple[Path, str]:
    """Return the local folder of files of one commit, and the commit.

    Parameters
    ----------
    hub_id
        Id of the repository on the hub, `owner/name`.
    names
        Names of the files.
    revision
        Commit, branch or tag of the repository; by default its main branch.
    remedy
        Advice for the error if neither the hub nor its cache has the files.
    """
    first, *others = names
    path = fetch(hub_id, [first], revision=revision, remedy=remedy)
    commit = commit_of(path)
    for name in others:
        fetch(hub_id, [name], revision=commit, remedy=remedy)
    return path.parent, commit


def commit_of(path: Path) -> str:
    """Return the commit of a file that `fetch` found: the name of its folder in the cache."""
    return path.parent.name


def _check_id(hub_id: str) -> None:
    with silence(NO_WIDGETS):  # the first import of the client
        from huggingface_hub import errors
        from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(hub_id)
    except errors.HFValidationError as error:
        raise ValueError(f"{hub_id!r} is not an id of the hub, owner/name ({error})") from error


def _check_revision(revision: str | None) -> None:
    """Raise ValueError if Git allows no branch of this name; the cache takes it for a path."""
    if revision is None or is_commit(revision):
        return
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", revision) is None or ".." in revision:
        raise ValueError(f"revision {revision!r} is not a commit, branch or tag")


def _find_in_cache(hub_id: str, names: Sequence[str], revision: str | None) -> Path | None:
    """Return the first file that the cache has of a revision."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        path = try_to_load_from_cache(hub_id, name, cache_folder(), revision)
        if isinstance(path, str):
            return Path(path)
    return None


def _download_first(hub_id: str, names: Sequence[str], revision: str | None) -> Path:
    """Download the first file that the repository has."""
    from huggingface_hub import errors

    for name in names:
        try:
            return _download(hub_id, name, revision)
        except errors.EntryNotFoundError:
            continue
        except errors.RevisionNotFoundError as error:
            raise OutOfReachError(f"{hub_id} has no revision {revision!r}") from error
        except errors.GatedRepoError:
            raise
        except errors.RepositoryNotFoundError as error:
            raise OutOfReachError(
                f"the hub has no {hub_id}, or shows it only after `hf auth login`"
            ) from error
    raise OutOfReachError(f"{hub_id} has no such file at revision {revision or 'main'!r}")


def _download(hub_id: str, name: str, revision: str | None) -> Path:
    """Download a file if the hub answers within seconds; the hub's client tries for a minute."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(hub_id, name, revision=revision, endpoint=endpoint())
    seconds = answer_seconds()
    try:
        ask_within(seconds, lambda: get_hf_file_metadata(url, timeout=seconds))
        folder = cache_folder()
        path = hf_hub_download(
            hub_id, name, revision=revision, endpoint=endpoint(), cache_dir=folder
        )
        return Path(path)
    except errors.LocalEntryNotFoundError as error:
        raise OutOfReachError(describe_failure(error)) from error
    except (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.EntryNotFoundError,
    ):
        raise
    except Exception as error:  # its HTTP library has errors that its own do not include
        raise OutOfReachError(describe_failure(error)) from error


def upload(folder: Path, hub_id: str, *, is_private: bool) -> str:
    """Upload the files of a folder to a repository, which is made if it is new; return the commit.

    Parameters
    ----------
    folder
        Folder with the files.
    hub_id
        Id of the repository on the hub, `owner/name`.
    is_private
        Whether the repository is private.

    Raises
    ------
    PermissionError
        If the hub does not let this user write to the repository.
    ValueError
        If `hub_id` is not an id of the hub, or the repository is public and should be private or
        the other way round.
    OSError
        If the hub is out of reach.
    """
    from huggingface_hub import HfApi, errors

    _check_id(hub_id)
    api = HfApi(endpoint=endpoint())
    seconds = answer_seconds()
    try:
        was_private = ask_within(seconds, lambda: api.model_info(hub_id, timeout=seconds).private)
    except errors.RepositoryNotFoundError:
        was_private = None
    except Exception as error:  # its HTTP library has errors that its own do not include
        raise _explain_upload(hub_id, error) from error
    if was_private is not None and was_private != is_private:
        raise ValueError(
            f"{hub_id} exists and is {'private' if was_private else 'public'}; pass "
            f"private={was_private}, or another id"
        )
    try:
        if was_private is None:
            api.create_repo(hub_id, private=is_private)
        with warnings.catch_warnings():
            # The vocabulary is a parquet file, which belongs to the model.
            warnings.filterwarnings("ignore", message="It seems that you are about")
            return api.upload_folder(repo_id=hub_id, folder_path=folder).oid
    except Exception as error:  # its HTTP library has errors that its own do not include
        raise _explain_upload(hub_id, error) from error


def _explain_upload(hub_id: str, error: Exception) -> OSError:
    """Return the error for an upload that failed."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return PermissionError(
            f"{endpoint()} does not let you write to {hub_id} (status {status}); log in with "
            "`hf auth login`, or set HF_TOKEN to a token that may write"
        )
    return OutOfReachError(f"cannot upload to {hub_id}: {describe_failure(error)}; try again")


def answer_seconds() -> float:
    """Return how long the hub has time to answer."""
    return float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or REACH_SECONDS)


def ask_within(seconds: float, ask: Callable[[], Result]) -> Result:
    """Return an answer of the network, or raise TimeoutError.

    A name server that does not answer ignores all other limits, so a thread waits for it.
    """
    answer: Future[Result] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(timeout=seconds + 0.5)


def describe_failure(error: Exception) -> str:
    """Return in one line why the hub was of no use."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    response = getattr(error, "response", None)
    if response is not None:
        return f"{endpoint()} answered with status {response.status_code}"
    message = str(error).partition("\n")[0] or type(error).__name__
    return f"{endpoint()} cannot be reached: {message}"
