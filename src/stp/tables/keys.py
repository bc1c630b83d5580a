"""The names of all slots that stp reads and writes in an AnnData."""

TABLE = "table"
SPATIAL = "spatial"

TOKENS = "stp_tokens"
GENES = "X_stp_genes"
IMAGES = "X_stp_images"
PATHWAYS = "X_stp_pathways"
FUSED = "X_stp_fused"
FEATURES = "X_features"  # of other tools
EXPRESSION = "stp_expression"
QUERY = "stp_query"
IMAGE_QUERY = "stp_image_query"
PROBE = "stp_probe"
BINS = "stp_bins"
BATCH_EFFECT = "stp_batch_effect"

# A cohort has a row per slide. These are columns of its `obs`, and entries of its `uns`.
PATIENT = "patient"
SLIDE_ID = "slide"
PATH = "path"
N_TILES = "n_tiles"
COHORT = "stp_cohort"
FOLD = "stp_fold"
SLIDES = "stp_slides"
SLIDE_SCORES = "stp_slide_scores"
SLIDE_COMPARISON = "stp_slide_comparison"
ATTENTION = "stp_attention"
SLIDE_GENES = "stp_slide_genes"
SPOT_GENES = "stp_spot_genes"

# Columns of `obs` that name the shape of each row. No column of a user has these names.
REGION = "stp_region"
SPOT = "stp_spot"

# Attribute of a SpatialData: the slide whose tiles it has, and how they were laid.
SLIDE = "stp_slide"
THUMBNAIL = "thumbnail"  # image of a tile store

# Names of regions that are those of every slide: ours, if the user names none, and of other tools.
UNNAMED = ("slide", "spots", "cells", "cell_circles", "cell_labels", "cell_boundaries", "nucleus")


def aligned(key: str) -> str:
    """Return the name in `obsm` of the aligned vectors that belong to the features `key`."""
    return f"{key}_aligned"


def inside(key: str) -> str:
    """Return the name in `obs` of the flag for spots whose whole patch lies inside the image."""
    return f"{key}_inside"


def n_tokens(key: str) -> str:
    """Return the name in `obs` of the number of tokens per spot."""
    return f"{key}_n"


def uniform(key: str) -> str:
    """Return the name in `obs` of the flag for predictions whose references all weigh the same."""
    return f"{key}_uniform"


def far(key: str) -> str:
    """Return the name in `obs` of the flag for spots that are far from every reference."""
    return f"{key}_far"


def neighbors(key: str) -> str:
    """Return the name in `obsm` of the references that each prediction is based on."""
    return f"{key}_neighbors"


def similarity(key: str) -> str:
    """Return the name in `obsm` of the similarities of these references."""
    return f"{key}_similarity"


def uncertainty(key: str) -> str:
    """Return the name in `obsm` of the standard deviation of each predicted gene."""
    return f"{key}_uncertainty"


def label(key: str, target: str, n_targets: int) -> str:
    """Return the name in `obs` of the predicted class; it names the target if there are several."""
    return key if n_targets == 1 else f"{key}_{target}"


def threshold(column: str) -> str:
    """Return the name in `obs` of the threshold that a predicted class was decided by."""
    return f"{column}_threshold"


def n_models(key: str) -> str:
    """Return the name in `obs` of the number of models that predicted each slide."""
    return f"{key}_models"


def uncalibrated(key: str) -> str:
    """Return the name in `obsm` of predictions before the temperature."""
    return f"{key}_uncalibrated"


def pooled(key: str) -> str:
    """Return the name in `obsm` of the vector that a slide model pools the tiles to."""
    return f"X_{key}"


def rank(column: str) -> str:
    """Return the name in `obs` of the rank of each tile in its slide, from 0 to 1."""
    return f"{column}_rank"


def contribution(key: str) -> str:
    """Return the name in `obsm` of the contribution of each tile to each output."""
    return f"{key}_contribution"


def maker_call(rep: str) -> str:
    """Return the call that makes an embedding, for error messages."""
    calls = {
        GENES: "stp.tl.embed_genes(adata, model)",
        IMAGES: "stp.tl.embed_images(sdata, model)",
        PATHWAYS: "stp.tl.embed_pathways(adata, model)",
        FUSED: "stp.tl.fuse(adata)",
    }
    return calls.get(rep.removesuffix("_aligned"), "what makes it")
