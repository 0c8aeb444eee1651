"""Our own small transformer: what it is, how it runs, how it is trained and read back."""
