"""Secure multi-party sums: arithmetic in a ring (`ring`) and one attempt of a sum (`sharing`).

A leaf that both sides import: it knows nothing of networks, Syft or interactions.
"""
