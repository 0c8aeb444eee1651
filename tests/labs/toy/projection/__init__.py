"""A whole lab: does a random projection keep the distances between points?"""
