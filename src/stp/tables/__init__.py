"""The only code that reads and writes the slots of an AnnData."""
