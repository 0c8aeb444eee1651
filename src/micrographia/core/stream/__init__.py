"""From text to what a dictionary is trained on: texts, tokens, activations, and batches of them."""
