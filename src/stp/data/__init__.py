"""Training stores on disk, and how samplers and datasets turn them into batches of tensors."""
