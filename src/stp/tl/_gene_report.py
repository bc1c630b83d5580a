"""What became of the genes of a table: kept in `uns`, said in a line, warned of where ranks would mislead."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from stp._log import logger
from stp.genes.names import Names

if TYPE_CHECKING:
    import pandas as pd

WARN_BELOW, REFUSE_BELOW = 0.8, 0.5  # share of UMIs in genes of the vocabulary
FEW_GENES = 1000  # of a panel, below which a rank says little
FEW_TOKENS = 100  # of the median spot; training leaves out such spots too
LISTED = 100  # unmapped names, the heaviest


def check_coverage(unmapped: np.ndarray, total: float, found: Names) -> float:
    """Return the share of UMIs in genes of the vocabulary; refuse where it is below half."""
    if not total:
        return 1.0
    coverage = 1 - unmapped.sum() / total
    if coverage < WARN_BELOW:
        shares = {
            rule: unmapped[found.rule == rule].sum() / total
            for rule in set(found.rule[found.index < 0])
        }
        rest = ", ".join(
            f"{rule} {shares[rule]:.1%}"
            for rule in sorted(shares, key=lambda rule: -shares[rule])[:3]
        )
        message = (
            f"only {coverage:.1%} of UMIs are in genes of the vocabulary (of the rest: {rest}); check species, gene "
            "names and gene_ids_key="
        )
        if coverage < REFUSE_BELOW:
            raise ValueError(message)
        warnings.warn(message, stacklevel=3)
    return coverage


def warn_of_spots(
    n_tokens: np.ndarray, context_length: int, n_genes: int, n_vocabulary: int
) -> None:
    """Warn of a small panel, of shallow spots and of empty ones."""
    if n_genes < min(FEW_GENES, n_vocabulary / 2):
        warnings.warn(
            f"the table measures {n_genes} of the {n_vocabulary} genes: ranks among so few depend on the choice of "
            "the panel, and embeddings of different panels are not comparable",
            stacklevel=3,
        )
    elif (
        n_genes >= FEW_GENES
        and len(n_tokens)
        and np.median(n_tokens) < min(FEW_TOKENS, context_length)
    ):
        warnings.warn(
            f"the median spot has {np.median(n_tokens):.0f} genes, so its ranks are mostly ties; of Visium HD, take "
            "larger bins (8 or 16 um)",
            stacklevel=3,
        )
    if empty := int((n_tokens == 0).sum()):
        warnings.warn(
            f"{empty} spots have no counts and get no embedding (NaN); "
            "sc.pp.filter_cells(adata, min_counts=1) drops them",
            stacklevel=3,
        )


def gene_report(
    names: np.ndarray, found: Names, unmapped: np.ndarray, total: float
) -> dict[str, "pd.DataFrame"]:
    """Tell by which rule names were mapped, and which were not.

    Parameters
    ----------
    names, found
        The gene names of a table and what they mean, (n_names,).
    unmapped
        UMIs of each unmapped name (n_names,).
    total
        UMIs of the table.

    Returns
    -------
    `rules`: names and share of UMIs (of unmapped ones) by rule; `unmapped`: rule, note and share of UMIs of the
    heaviest unmapped names and of all ambiguous ones.
    """
    import pandas as pd

    share = unmapped / max(total, 1)
    table = pd.DataFrame(
        {"rule": found.rule.astype(str), "note": found.note.astype(str), "umis": share}
    )
    table.index = pd.Index(np.asarray(names, str), name="gene")
    rules = table.groupby("rule").agg(names=("rule", "size"), umis=("umis", "sum"))
    lost = table[found.index < 0].sort_values("umis", ascending=False, kind="stable")
    listed = (np.arange(len(lost)) < LISTED) | (lost["rule"] == "ambiguous").to_numpy()
    return {
        "rules": rules.sort_values("names", ascending=False, kind="stable"),
        "unmapped": lost[listed],
    }


def log_summary(
    key: str, found: Names, report: dict[str, "pd.DataFrame"], coverage: float, n_tokens: np.ndarray
) -> None:
    """Log what was understood, in one line."""
    rules = report["rules"]["names"]
    mapped = [
        f"{rules[rule]} by {rule}"
        for rule in rules.index
        if rule in set(found.rule[found.index >= 0])
    ]
    lost = [f"{gene} ({rule})" for gene, rule in report["unmapped"]["rule"][:5].items()]
    logger.info(
        "%s: %s; %.1f%% of UMIs; median %d tokens per spot; most expressed of the rest: %s",
        key,
        ", ".join(mapped),
        100 * coverage,
        np.median(n_tokens) if len(n_tokens) else 0,
        ", ".join(lost) or "none",
    )
