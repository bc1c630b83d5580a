"""Stores on disk as batches of tensors: readers, samplers, and the way from any SpatialData to its slides."""
