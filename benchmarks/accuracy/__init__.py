"""How good embeddings and predictions are."""
