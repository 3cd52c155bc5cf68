"""rosepo_bench: preference alignment of LLM recommenders, trained, measured and tabled."""

__version__ = "0.1.0"
