"""Our own small transformer: architecture, forward pass, training objectives, and loading from a Run."""
