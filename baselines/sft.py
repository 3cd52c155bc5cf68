"""Supervised fine-tuning: the language model trained to continue histories."""

from rosepo_bench.api import PlainLM

METHOD = PlainLM(name="sft", about="the language model after SFT on training histories", sft="once")
