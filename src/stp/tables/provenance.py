"""The record in `uns` of the model that made an embedding, so that models are never mixed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stp.tables.keys import aligned

if TYPE_CHECKING:
    from anndata import AnnData

ModelRecord = dict[str, Any]  # name, class, digest, vocabulary


def model_of(adata: "AnnData", key: str) -> ModelRecord | None:
    """Return the record of the model that made `obsm[key]`, or None if stp did not make it.

    Raises
    ------
    ValueError
        stp made the embedding, but the record is lost.
    """
    details = adata.uns.get(key, adata.uns.get(key.removesuffix(aligned("")), {}))
    model_record = details.get("model", {}) if isinstance(details, Mapping) else {}
    if model_record is None:
        return None
    if model_record.get("digest"):
        return dict(model_record)
    if model_record or key.startswith("X_stp_"):
        raise ValueError(
            f"the model that made obsm[{key!r}] is not recorded: anndata.concat drops the record, "
            "and also if the tables were embedded with different models; combine the tables with "
            "stp.get.concat, which keeps it, or embed the spots again with one model"
        )
    return None


def require_one_model(models: Mapping[str, ModelRecord | None]) -> ModelRecord | None:
    """Return the record of the model that made all these embeddings, or None if none is recorded.

    Raises
    ------
    ValueError
        Different models made them, or only a part has a record.
    """
    digests = {record and record["digest"] for record in models.values()}
    if len(digests) > 1:
        makers = "; ".join(f"{label} by {_title(record)}" for label, record in models.items())
        raise ValueError(
            f"embeddings of different models do not mix: {makers}; embed all spots with one model"
        )
    return next(iter(models.values()), None)


def _title(model_record: ModelRecord | None) -> str:
    if not model_record:
        return "an unknown model"
    return f"{model_record['name']} ({model_record['digest'][:12]})"
