"""Secure multi-party sums, from the ring up to one attempt's transcript.

A leaf that both sides import: it knows nothing of networks, Syft or interactions. `ring`, `masks`,
`shamir` and `keys` are the parts; `messages` and `agreement` what is said and agreed on;
`aggregation` one domain's side, `coordination` the hub's, `transcript` what anyone can check;
`ckks` makes the same sums under homomorphic encryption.
"""
