"""Tokens, embeddings and predictions of the spots of an AnnData or SpatialData."""

from stp.tl._embed import embed_genes, fuse
from stp.tl._embed_images import embed_images
from stp.tl._expression import predict_expression
from stp.tl._tokenize import tokenize

__all__ = ["embed_genes", "embed_images", "fuse", "predict_expression", "tokenize"]
