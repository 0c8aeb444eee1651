"""What is done with dictionaries: training, evaluation, geometry."""
