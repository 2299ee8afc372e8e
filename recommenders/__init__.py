"""Everything that is specific to recommending: models, losses, metrics and data sets.

Written with the public face only; no module here can reach a node's private data.
"""
