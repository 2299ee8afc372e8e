"""Sums of integers under CKKS, as an alternative to masks: the same steps, another protocol.

`party` is one domain's side, `coordination` the hub's, `transcript` what anyone can check. Only
`seal` touches TenSEAL; `policies.homomorphic` proves that its sums are exact.
"""
