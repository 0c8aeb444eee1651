"""The geometry of a dictionary's weights: how sparse in the neurons, and where its rarely firing latents point."""
