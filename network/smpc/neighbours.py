"""Who masks with whom: everybody, or in large rosters a sparse graph.

Bell, Bonawitz, Gascon, Lepoint and Raykova 2020, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, section 3: each domain agrees on masks with, and shares its
secrets among, only its neighbours in a k-regular Harary graph, which must stay good when
some domains are malicious (at most t) and some fall silent (at most N - tau):

1. what is left of the graph is connected, else the total of a part of the domains would open;
2. malicious neighbours don't hold enough shares to open a secret;
3. neighbours that are left hold enough to open it.

For thousands of clients the paper draws the graph at random and bounds the probability that one of
these fails. Rosters here have at most 64 domains, whom the hub may pick to silence, so k is chosen
for the worst case instead: each of the three fails with probability 0, whatever the hub
does, and below the 2^-40 that is asked for. (1) holds because a Harary graph stays connected when
any k - 1 domains are taken away (Harary 1962, "The maximum connectivity of a graph"), so
k = t + (N - tau) + 1 is enough. (2) and (3) then leave one number: k + 1 - (N - tau) shares.

Nobody is told k. Every node computes it from the plan that its owner signed, masks only with its
own neighbours, needs all but N - tau of them, and refuses receipts that show other neighbourhoods.
"""

SPARSE_ABOVE = 16
"""Rosters up to this size mask with everybody."""


def degree(size: int, threshold: int, collusion: int) -> int:
    """How many neighbours each of `size` domains has.

    Args:
        threshold: tau, how many domains survive. collusion: t, how many may be malicious.
    """
    complete = size - 1
    if size <= SPARSE_ABOVE:
        return complete
    needed = max(2, collusion + (size - threshold) + 1)
    if needed % 2 and size % 2:
        needed += 1  # no graph has an odd number of odd degrees
    return min(needed, complete)


def share_threshold(size: int, threshold: int, collusion: int) -> int:
    """How many shares open a secret that a domain split among its neighbours and itself.

    As many as are left of these when N - tau fall silent; more than the t malicious ones have.
    """
    return degree(size, threshold, collusion) + 1 - (size - threshold)


def neighbourhood(index: int, size: int, degree: int) -> tuple[int, ...]:
    """A domain and its neighbours, as sorted indices from 0: the Harary graph H(degree, size)."""
    if degree >= size - 1:
        return tuple(range(size))
    found = {(index + step) % size for step in range(-(degree // 2), degree // 2 + 1)}
    if degree % 2:
        found.add((index + size // 2) % size)
    return tuple(sorted(found))
