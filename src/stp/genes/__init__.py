"""From gene names and counts to tokens."""
