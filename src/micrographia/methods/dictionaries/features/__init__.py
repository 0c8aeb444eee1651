"""Feature bundles: everything a browser shows of a dictionary's latents, in a folder that is read by range."""
