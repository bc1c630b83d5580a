"""Find the measured spots that are most similar to a query, and average their profiles."""
