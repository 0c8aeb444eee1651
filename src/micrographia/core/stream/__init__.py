"""The stream: text to tokens, tokens to activations, activations to batches."""
