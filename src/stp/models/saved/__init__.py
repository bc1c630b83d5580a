"""Models as folders on disk and on a hub."""
