"""What stp is measured by: one module per question, results in RESULTS.md."""
