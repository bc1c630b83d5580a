"""How fast `stp` is, and how much memory it takes."""
