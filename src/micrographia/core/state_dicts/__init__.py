"""Read other people's checkpoints: load the file, recognise its layout, convert it to ours."""
