"""Weights from elsewhere: read from files, their layout recognised, turned into ours."""
