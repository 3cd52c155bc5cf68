"""The language model before SFT."""

from rosepo_bench.api import PlainLM

METHOD = PlainLM(name="zero_shot", about="the language model before SFT", sft="none")
