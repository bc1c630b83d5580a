"""The names of every slot that stp writes or reads, and the ids of its tokens: one place for all of them."""

TABLE = "table"
SPATIAL = "spatial"

TOKENS = "stp_tokens"
GENES = "X_stp_genes"
IMAGES = "X_stp_images"
PATHWAYS = "X_stp_pathways"
FUSED = "X_stp_fused"
EXPRESSION = "stp_expression"
PROBE = "stp_probe"
BATCH_EFFECT = "stp_batch_effect"

REGION, SPOT = (
    "stp_region",
    "stp_spot",
)  # columns that tie a row to its shape; no user's column has these names


def aligned(key: str) -> str:
    """Name the unit vectors after projection that stand beside the features of `key`."""
    return f"{key}_aligned"


def inside(key: str) -> str:
    """Name the `obs` column that tells whether a spot's patch lies wholly inside the image."""
    return f"{key}_inside"


def n_tokens(key: str) -> str:
    """Name the `obs` column that counts a spot's tokens."""
    return f"{key}_n"


def uniform(key: str) -> str:
    """Name the `obs` column that tells whether a prediction had to weigh its references equally."""
    return f"{key}_uniform"


def maker_call(rep: str) -> str:
    """Name the call that makes an embedding."""
    calls = {
        GENES: "stp.tl.embed_genes(adata, model)",
        IMAGES: "stp.tl.embed_images(sdata, model)",
        PATHWAYS: "stp.tl.embed_pathways(adata, model)",
        FUSED: "stp.tl.fuse(adata)",
    }
    return calls.get(rep.removesuffix("_aligned"), "what makes it")


def far(key: str) -> str:
    """Name the `obs` column that tells whether a spot is far from any reference."""
    return f"{key}_far"


def neighbors(key: str) -> str:
    """Name the `obsm` array of the references behind each prediction."""
    return f"{key}_neighbors"


def similarity(key: str) -> str:
    """Name the `obsm` array of their similarities."""
    return f"{key}_similarity"


def uncertainty(key: str) -> str:
    """Name the `obsm` array of the spread of each predicted gene over the references."""
    return f"{key}_uncertainty"
