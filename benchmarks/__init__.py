"""One module per headline number; run as `python -m benchmarks.NAME --json`."""
