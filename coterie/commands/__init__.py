"""The groups of `coterie` commands, one module each."""
