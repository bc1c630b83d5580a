"""The model of `embed_stores`, and which embeddings of a store it has not made yet."""

from pathlib import Path
from typing import Any

from stp.models import GeneEncoder, ImageEncoder, Stamp, load_backbone
from stp.models.patch_encoder import PatchEncoder
from stp.models.published.backbones import BACKBONES
from stp.models.saved.description import CONFIG, read_description
from stp.tables import keys

Model = Stamp | GeneEncoder | PatchEncoder
# The classes of models that a folder can hold; a WrappedEncoder is no folder.
MODEL_CLASSES: dict[str, type[Stamp | GeneEncoder | ImageEncoder]] = {
    "Stamp": Stamp,
    "GeneEncoder": GeneEncoder,
    "ImageEncoder": ImageEncoder,
}


def open_model(model: Any) -> Model:
    """Return a model, or load it from its folder, or a pathology encoder by its name.

    Raises
    ------
    TypeError
        That is a model that makes no embeddings, or something else.
    FileNotFoundError
        There is no such folder.
    ValueError
        The folder holds a model that makes no embeddings.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | Path):
        raise TypeError(
            f"expected a model, its folder or its name, got {type(model).__name__}; embeddings "
            f"are made by {list(MODEL_CLASSES)}, and by other torch modules if you wrap them in "
            "stp.models.WrappedEncoder"
        )
    if str(model) in BACKBONES:
        return load_backbone(str(model))
    file = Path(model) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{model} has no {CONFIG}; give a folder of stp.train, or the name of a backbone that "
            "stp.models.backbones() lists"
        )
    class_name = read_description(file)["class"]
    if class_name not in MODEL_CLASSES:
        raise ValueError(
            f"{model} holds a {class_name}; embeddings are made by {list(MODEL_CLASSES)}"
        )
    return MODEL_CLASSES[class_name].from_pretrained(model)


def reads_genes(model: Model) -> bool:
    """Return whether a model embeds tokens; a Stamp aligned with pathways alone does not."""
    if isinstance(model, Stamp):
        return model.gene_encoder is not None
    return isinstance(model, GeneEncoder)


def reads_images(model: Model) -> bool:
    """Return whether a model embeds patches."""
    return isinstance(model, PatchEncoder | Stamp)


def list_missing(path: Path, model: Model, digest: str, table_key: str) -> list[str]:
    """List the embeddings that store and model allow and that this model has not made yet.

    Raises
    ------
    ValueError
        The store has no image, and the model reads nothing else.
    """
    import zarr

    group = zarr.open_group(path, mode="r", use_consolidated=False)
    has_image = bool(list(group["images"])) if "images" in group else False
    possible = [keys.GENES] if reads_genes(model) else []
    if not possible and not has_image:
        raise ValueError(
            f"{path} has no image, and {model.name} reads nothing else; write the store again "
            "with an image"
        )
    # Without an image, a Stamp still embeds genes.
    if isinstance(model, PatchEncoder) or (isinstance(model, Stamp) and has_image):
        possible.append(keys.IMAGES)
    return [key for key in possible if stored_digest(group, table_key, key) != digest]


def stored_digest(group: Any, table_key: str, key: str) -> str | None:
    """Return the digest of the model that made a stored embedding.

    The digest is written after the embedding, so an embedding with a digest is complete.
    """
    import anndata

    digest_path = f"tables/{table_key}/uns/{key}/model/digest"
    if digest_path not in group:
        return None
    return str(anndata.io.read_elem(group[digest_path]))
