"""Shared work as stages, each computed once for a data set, a seed and, where it matters, a method."""
