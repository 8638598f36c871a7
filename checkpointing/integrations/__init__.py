"""One module per trainer: each imports its trainer when it is itself imported, and not before."""
