"""Training without biology or data: steps, processes, run directories."""
