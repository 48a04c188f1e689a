"""Speed and memory as ratios within one run: ``python -m benchmarks`` runs all and writes ``docs/benchmarks.md``."""
