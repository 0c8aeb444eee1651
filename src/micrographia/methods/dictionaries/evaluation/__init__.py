"""Evaluation of dictionaries: fidelity, spliced loss, known features, probing, absorption, interpretation."""
