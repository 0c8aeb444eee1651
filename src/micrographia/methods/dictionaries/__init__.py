"""Dictionaries: training, evaluation, and the geometry of their weights."""
