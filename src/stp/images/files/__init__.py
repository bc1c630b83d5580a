"""Image files as arrays that are read window by window."""
