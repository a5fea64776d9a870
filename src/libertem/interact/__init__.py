"""Data sets in an interactive session: arrays, sums, figures, files; what a notebook shows of them."""
