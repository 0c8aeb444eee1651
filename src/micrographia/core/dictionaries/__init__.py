"""Dictionaries: sparse autoencoders and transcoders as values, and the files that hold them."""
