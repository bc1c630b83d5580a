"""What `stp` is measured by: one module per question. `README.md` lists questions and results."""
