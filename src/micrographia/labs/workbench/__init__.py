"""The workbench: a user's own question of any model. A Config in, a Run out, no published claims."""
