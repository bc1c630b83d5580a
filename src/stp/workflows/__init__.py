"""What combines verbs, plots and training."""
