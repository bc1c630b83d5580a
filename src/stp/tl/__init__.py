"""Compute tokens, embeddings, predictions and scores for an AnnData or SpatialData."""

from stp.tl._aggregate_bins import aggregate_bins
from stp.tl._assign_folds import assign_folds
from stp.tl._assign_split import assign_split
from stp.tl._batch_effect import batch_effect
from stp.tl._compare_slides import compare_slides
from stp.tl._embed_genes import embed_genes
from stp.tl._embed_images import embed_images
from stp.tl._embed_pathways import embed_pathways
from stp.tl._explain_by_spots import explain_by_spots
from stp.tl._explain_slides import explain_slides
from stp.tl._find_duplicates import find_duplicates
from stp.tl._fuse import fuse
from stp.tl._linear_probe import linear_probe
from stp.tl._linear_probe_paper import linear_probe_paper
from stp.tl._predict_expression import predict_expression
from stp.tl._predict_slides import predict_slides
from stp.tl._query_by_genes import query_by_genes
from stp.tl._query_by_image import query_by_image
from stp.tl._regress_expression import apply_expression_head, regress_expression
from stp.tl._score_slides import score_slides
from stp.tl._score_tiles import score_tiles
from stp.tl._scores import score_clusters, score_expression, score_retrieval
from stp.tl._tokenize import tokenize

__all__ = [
    "aggregate_bins",
    "apply_expression_head",
    "assign_folds",
    "assign_split",
    "batch_effect",
    "compare_slides",
    "embed_genes",
    "embed_images",
    "embed_pathways",
    "explain_by_spots",
    "explain_slides",
    "find_duplicates",
    "fuse",
    "linear_probe",
    "linear_probe_paper",
    "predict_expression",
    "predict_slides",
    "query_by_genes",
    "query_by_image",
    "regress_expression",
    "score_clusters",
    "score_expression",
    "score_retrieval",
    "score_slides",
    "score_tiles",
    "tokenize",
]
