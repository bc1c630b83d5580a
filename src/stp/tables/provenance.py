"""Which model made an embedding: read from `uns`, and the refusal to mix models."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stp.tables.keys import aligned

if TYPE_CHECKING:
    from anndata import AnnData

Model = dict[str, Any]  # name, class, digest, vocabulary


def model_of(adata: "AnnData", key: str) -> Model | None:
    """Return what `uns` says of the model that made `obsm[key]`; None for an embedding that stp did not make.

    Raises
    ------
    ValueError
        stp made the embedding and the record is gone.
    """
    details = adata.uns.get(key, adata.uns.get(key.removesuffix(aligned("")), {}))
    made_by = details.get("model", {}) if isinstance(details, Mapping) else {}
    if made_by is None:
        return None
    if made_by.get("digest"):
        return dict(made_by)
    if made_by or key.startswith("X_stp_"):
        raise ValueError(
            f'nothing says which model made obsm[{key!r}]: anndata.concat loses it unless uns_merge="same" is passed, '
            "and then, too, where the tables were embedded with different models; concatenate again with it, or embed "
            "the spots again with one model"
        )
    return None


def require_one_model(models: Mapping[str, Model | None]) -> Model | None:
    """Return the model behind all of some embeddings, named by what they are; None where none is known of any.

    Raises
    ------
    ValueError
        They are of different models, or the model of some is not known.
    """
    if len({made_by and made_by["digest"] for made_by in models.values()}) > 1:
        listed = "; ".join(f"{label} by {_title(made_by)}" for label, made_by in models.items())
        raise ValueError(
            f"embeddings of different models do not mix: {listed}; embed all spots with one model"
        )
    return next(iter(models.values()), None)


def _title(made_by: Model | None) -> str:
    return (
        f"{made_by['name']} ({made_by['digest'][:12]})"
        if made_by
        else "something that is not recorded"
    )
