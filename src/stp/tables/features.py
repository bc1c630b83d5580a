"""Which rows of `var` are genes: not antibodies, guides, peaks or control probes."""

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

TYPE_COLUMNS = ("feature_types", "feature_type")

# Why a row is no gene; such rows have no share in totals and coverage.
NOT_A_GENE = "not a gene"
CONTROL = "control"

_GENE_TYPES = {"gene expression", "gex", "gene", "genes", "rna", "mrna"}
# Types of 10x and Xenium, and the short names of other tools.
_OTHER_TYPES = re.compile(
    r".*(antibody|antigen|capture|crispr|guide|multiplex|hashtag|peak|codeword|probe|control).*"
    r"|custom|protein|proteins|prot|adt|hto|atac|cmo|vdj.*|blank.*"
)
_CONTROL_TYPES = re.compile(r".*(control|codeword)|blank.*")
# Negative controls of Xenium, CosMx and MERSCOPE, deprecated probes of 10x, and spike-ins.
_CONTROL_NAMES = re.compile(
    r"(NegControl|NegPrb|Negative\d|negative_|BLANK|Blank[-_]\d|antisense_|Unassigned"
    r"|DEPRECATED_|DeprecatedCodeword|Intergenic_|SystemControl|FalseCode|ERCC-\d)"
)


def find_other_features(adata: "AnnData") -> tuple[np.ndarray, np.ndarray]:
    """Return why rows of `var` are no genes, and their types: two arrays of text (n_vars,).

    The reason is "not a gene" or "control", and "" for a gene. The column `feature_types` or
    `feature_type` decides, and names that only control probes have.
    """
    reasons = np.full(adata.n_vars, "", object)
    types = np.full(adata.n_vars, "", object)
    for key in TYPE_COLUMNS:
        if key in adata.var:
            _add_types(adata.var[key], reasons, types)
    is_control = [is_control_name(str(name)) for name in adata.var_names]
    reasons[is_control] = CONTROL
    return reasons, types


def is_control_name(name: str) -> bool:
    """Return whether only a control probe, a deprecated probe or a spike-in has this name."""
    return _CONTROL_NAMES.match(name) is not None


def find_genes(adata: "AnnData") -> np.ndarray:
    """Return for each row of `var` (n_vars,) whether it is a gene."""
    reasons, _ = find_other_features(adata)
    return reasons == ""


def _add_types(column: "pd.Series", reasons: np.ndarray, types: np.ndarray) -> None:
    """Write the reasons and types of rows that a column of types shows to be no genes."""
    values = column.astype(str).to_numpy(dtype=object)
    unique_types = [value for value in set(values) if value not in ("", "nan", "None", "<NA>")]
    # If "Gene Expression" is in the column, everything else is another kind of feature. Other
    # tools write biotypes here, such as "protein_coding", which are types of genes.
    has_gene_type = any(value.strip().casefold() in _GENE_TYPES for value in unique_types)
    for value in unique_types:
        name = value.strip().casefold()
        if name in _GENE_TYPES or not (has_gene_type or _OTHER_TYPES.fullmatch(name)):
            continue
        has_type = values == value
        reasons[has_type] = CONTROL if _CONTROL_TYPES.match(name) else NOT_A_GENE
        types[has_type] = value
