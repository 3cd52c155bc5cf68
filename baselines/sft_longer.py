"""SFT trained on by as many optimizer steps and about as many tokens as preference training takes. A method that
does not beat it has gained from training longer, not from preferences."""

from rosepo_bench.api import PlainLM

METHOD = PlainLM(
    name="sft-longer", about="SFT, trained on as long as preference training takes: a control", sft="longer"
)
