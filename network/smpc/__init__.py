"""Secure multi-party sums, from the ring up to one attempt's transcript.

A leaf that both sides import: it knows nothing of networks, Syft or interactions. `ring`, `masks`,
`shamir` and `keys` are the parts; `attempt`, `agreement` and `messages` what is agreed on and said;
`aggregation` is one domain's side, `coordination` the hub's; `verification` and `transcript` are
what anyone can check;
`ckks` makes the same sums under homomorphic encryption.
"""
