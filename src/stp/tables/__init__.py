"""Read and write the slots of an AnnData; no other folder does."""
