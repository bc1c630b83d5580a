"""The measured spots that are most similar to a query."""
