"""Spots that detect too few genes to be trained on."""

from stp._log import logger, warn
from stp.data.store import SpotStore

MANY_POOR = 0.2  # so large a share of the spots is worth a warning


def warn_about_poor_spots(stores: list[SpotStore], min_genes: int) -> None:
    """Log how many spots in tissue detect too few genes to be trained on, and warn about many."""
    n_in_tissue = sum(len(store.trainable(0)) for store in stores)
    n_poor = n_in_tissue - sum(len(store.trainable(min_genes)) for store in stores)
    if not n_poor:
        return
    share = n_poor / n_in_tissue
    fact = (
        f"{n_poor:,} of {n_in_tissue:,} spots in tissue ({share:.1%}) detect fewer than "
        f"{min_genes} genes and are not trained on"
    )
    if share < MANY_POOR:
        logger.info(f"{fact}.")
        return
    worst = max(stores, key=lambda store: len(store.trainable(0)) - len(store.trainable(min_genes)))
    warn(
        f"{fact}, most of them in {worst.source}. Lower min_genes, or sum small bins with "
        "stp.tl.aggregate_bins before stp.io.write_store"
    )
