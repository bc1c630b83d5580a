"""Files from the hub of Hugging Face, or from its cache on this machine."""

import re
from collections.abc import Sequence
from pathlib import Path

HUB = "https://huggingface.co"


def fetch(hub_id: str, names: Sequence[str], *, revision: str | None = None, remedy: str) -> Path:
    """Return the local path of the first file that the repository has.

    A file that is in the cache needs no network.

    Parameters
    ----------
    hub_id
        Id of the repository on the hub, `owner/name`.
    names
        Names of files, the preferred one first.
    revision
        Commit of the repository; by default the latest.
    remedy
        Advice for the error if neither the hub nor its cache has the file.

    Raises
    ------
    FileNotFoundError
        If neither the hub nor its cache has the file.
    PermissionError
        If the user has to accept the terms of the repository first.
    ValueError
        If `hub_id` is not an id of the hub.
    """
    from huggingface_hub import errors, hf_hub_download

    not_found = FileNotFoundError(
        f"cannot get {' or '.join(names)} of {hub_id} from the hub or from its cache on this "
        f"machine; {remedy}"
    )
    for name in names:
        try:
            return Path(hf_hub_download(hub_id, name, revision=revision))
        except errors.HFValidationError as error:
            raise ValueError(f"{hub_id!r} is not an id of the hub, owner/name ({error})") from error
        except errors.GatedRepoError as error:
            raise PermissionError(
                f"the weights of {hub_id} are gated: accept the terms at {HUB}/{hub_id}, log in "
                f"with `hf auth login`, and try again; or {remedy}"
            ) from error
        except errors.LocalEntryNotFoundError as error:
            raise not_found from error
        except errors.EntryNotFoundError:
            continue
        except (errors.HfHubHTTPError, OSError) as error:
            raise not_found from error
    raise not_found


def check_commit(revision: str) -> None:
    """Raise ValueError if a revision is not a commit: a branch or a tag may move."""
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"revision {revision!r} is not a commit: branches and tags move; pass the 40 "
            "hexadecimal digits that the hub shows under Files, History"
        )
