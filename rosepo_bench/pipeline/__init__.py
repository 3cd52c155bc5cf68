"""Shared work as stages: what a data set, a seed and a method need, each computed once."""
