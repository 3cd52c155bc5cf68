"""The methods of the benchmark, one file each, registered in pyproject.toml under ``rosepo_bench.methods``."""
