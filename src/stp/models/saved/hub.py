"""Files from the hub of Hugging Face, or from its cache on this machine."""

import re
from collections.abc import Sequence
from pathlib import Path

HUB = "https://huggingface.co"


def fetch(hub_id: str, names: Sequence[str], *, revision: str | None = None, instead: str) -> Path:
    """Return the first of some files that a repository of the hub has; a file in the cache needs no network.

    Parameters
    ----------
    hub_id
        Owner and name, `owner/name`.
    names
        Names of files, the wanted first.
    revision
        A commit; the latest by default.
    instead
        What to do where neither the hub nor its cache gives the file.

    Raises
    ------
    FileNotFoundError
        Neither the hub nor its cache gives the file.
    PermissionError
        The terms of the repository are to be accepted first.
    ValueError
        It is no id of the hub.
    """
    from huggingface_hub import errors, hf_hub_download

    lost = FileNotFoundError(
        f"{hub_id} is neither on the hub within reach nor in its cache on this machine, or has no "
        f"{' or '.join(names)}: {instead}"
    )
    for name in names:
        try:
            return Path(hf_hub_download(hub_id, name, revision=revision))
        except errors.HFValidationError as error:
            raise ValueError(f"{hub_id!r} is no id of the hub, owner/name ({error})") from error
        except errors.GatedRepoError as error:
            raise PermissionError(
                f"the weights of {hub_id} are gated: accept the terms at {HUB}/{hub_id}, log in with `hf auth login`, "
                f"and try again; or {instead}"
            ) from error
        except errors.LocalEntryNotFoundError as error:
            raise lost from error
        except errors.EntryNotFoundError:
            continue
        except (errors.HfHubHTTPError, OSError) as error:
            raise lost from error
    raise lost


def check_commit(revision: str) -> None:
    """Refuse a revision that may move: a branch or a tag."""
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"revision {revision!r} is no commit: branches and tags move; pass the 40 hexadecimal digits that the "
            "hub shows under Files, History"
        )
