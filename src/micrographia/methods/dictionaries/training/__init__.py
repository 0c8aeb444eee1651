"""Training dictionaries: recipes, losses with their gradients, and the loop. `train.train_dictionaries` is the door."""
