"""The counts of a synthetic slide: expression follows the domains and activity under a spot."""

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.random import Generator
from scipy import sparse

from stp.datasets._programs import FAMILIES, HOUSEKEEPING, MARKERS
from stp.datasets._tissue import DOMAINS, LOOK


def draw_counts(rng: Generator, spots: pd.DataFrame) -> AnnData:
    """Draw negative-binomial counts of spots.

    Domains contribute by their area and RNA content. Activity scales the genes of one more program.
    """
    genes, base, log_fold = _draw_law()
    rate = (spots[DOMAINS] * LOOK["rna"]).to_numpy() @ (base / base.sum() * np.exp(log_fold[:-1]))
    rate *= np.exp(spots[["activity"]].to_numpy() * log_fold[-1] * 0.4)
    depth = 1400 * rng.lognormal(0, 0.15) * rng.lognormal(0, 0.35, (len(spots), 1))
    counts = rng.poisson(rng.gamma(3, depth * rate / 3))
    return AnnData(sparse.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=genes))


def _draw_law() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return genes, base rates (n_genes,) and log folds (n_programs, n_genes), for every seed."""
    rng = np.random.default_rng(0)
    housekeeping = HOUSEKEEPING.split()
    background = [stem + end for stem, ends in FAMILIES.items() for end in ends.split()]
    groups = [*(markers.split() for markers in MARKERS.values()), housekeeping, background]
    genes = np.concatenate(groups)
    group = np.repeat(np.arange(len(groups)), [len(members) for members in groups])
    is_marker = group == np.arange(len(MARKERS))[:, None]
    log_fold = np.log(rng.uniform(3, 8, len(genes))) * is_marker
    level = 2.0 * np.isin(genes, housekeeping) + 1.5 * np.char.startswith(genes, "RP")
    return list(genes), np.exp(level + 0.7 * rng.standard_normal(len(genes))), log_fold
