"""A hub and some domains that lie with it: all they saw of an attempt, put together.

The simulator of Bonawitz et al. 2017, theorem 6.5, is given the total and draws what honest domains
say: their masked inputs are uniform, but for their sum where it was opened. Whatever else is in a
transcript (signed public keys, sealed shares, fewer shares than open a secret) it makes by itself.
So what is to be shown is that, less all the masks that the coalition can take off, every honest
domain's vector is under a mask that nobody outside of the honest domains knows.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from network.smpc import shamir
from network.smpc.keys import EphemeralKey
from network.smpc.masks import Mask, apply, mask_key
from network.smpc.messages import Advert, Unmasking, self_info, transcript_hash
from network.smpc.ring import Elements
from network.smpc.sharing import pair_masks
from tests.network.roster_of_domains import Domains

SEED, KEY = 0, 1


@dataclass
class Coalition:
    """Give it what domains answer; it may look into its members' memory.

    Attributes:
        members: the domains that lie with the hub.
        inputs: the masked inputs that came, by domain, whether they were used or not.
    """

    domains: Domains
    members: Collection[str]
    inputs: dict[str, Elements] = field(default_factory=dict)
    adverts: dict[str, Advert] = field(default_factory=dict)
    _keys: dict[str, bytes] = field(default_factory=dict)
    _shares: dict[tuple[int, str], dict[int, bytes]] = field(default_factory=dict)

    def exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """An honest hub's, overheard."""
        answers = self.domains.exchange(phase, arguments)
        for name, answer in answers.items():
            self.hear(name, answer)
        return answers

    def hear(self, name: str, answer: Any) -> None:
        """What a domain answered in any step."""
        if isinstance(answer, Advert):
            self.adverts[name] = answer
            if name in self.members:
                self._keys[name] = self.domains.parties[name]._secrets.pairwise.secret
        if isinstance(answer, tuple):
            self.inputs[name] = answer[1].copy()
            if name in self.members:
                held = json.loads(self.domains.disks[name]["held"])
                for dealer, pair in held.items():
                    self._learn(name, dealer, *(bytes.fromhex(share) for share in pair))
        if isinstance(answer, Unmasking):
            for dealer, share in answer.seed_shares.items():
                self._learn(name, dealer, share, None)
            for dealer, share in answer.key_shares.items():
                self._learn(name, dealer, None, share)

    def _learn(self, holder: str, dealer: str, *pair: bytes | None) -> None:
        for kind, share in enumerate(pair):
            if share is not None:
                known = self._shares.setdefault((kind, dealer), {})
                known[self.domains.agreement.holder(holder)] = share

    def secret(self, kind: int, name: str) -> bytes | None:
        """A domain's seed or mask key, if enough shares of it are known."""
        if kind == KEY and name in self._keys:
            return self._keys[name]
        shares = self._shares.get((kind, name), {})
        enough = self.domains.agreement.share_threshold
        return shamir.join(shares, enough) if len(shares) >= enough else None

    def honest(self) -> list[str]:
        """The honest domains whose masked inputs came."""
        return sorted(set(self.inputs) - set(self.members))

    def partners(self, name: str) -> set[str]:
        """The domains whose masks with this one the coalition doesn't know."""
        around = set(self.domains.agreement.neighbourhood(name)) & set(self.adverts)
        if self.secret(KEY, name) is not None:
            return set()
        return {n for n in around - {name} if self.secret(KEY, n) is None}

    def is_hidden(self, name: str) -> bool:
        """Whether a domain's own mask is unknown."""
        return self.secret(SEED, name) is None

    def peeled(self, name: str) -> Elements:
        """A domain's masked input without all masks that are known."""
        heard = transcript_hash(self.domains.agreement, self.adverts)
        found = self.inputs[name].copy()
        masks = []
        seed = self.secret(SEED, name)
        if seed is not None:
            masks.append(Mask(mask_key(seed, self_info(heard, name)), subtract=True))
        around = set(self.domains.agreement.neighbourhood(name)) & set(self.adverts) - {name}
        known = self.secret(KEY, name)
        for other in around:
            agreed, there = (known, other) if known else (self.secret(KEY, other), name)
            if agreed is None:
                continue
            (mask,) = pair_masks(
                heard, name if known else other, EphemeralKey(agreed),
                {there: self.adverts[there].mask_key},
            )  # fmt: skip
            # As it was added by `name`; taken off, it has the other sign.
            added = other < name
            masks.append(Mask(mask.key, subtract=not added))
        apply(found, masks)
        return found

    def assert_nothing_is_learned(self) -> None:
        """Every honest vector is under an unknown mask, or in a sum of enough honest ones."""
        honest = self.honest()
        enough = self.domains.threshold - len(self.members)
        left = {name for name in honest if not self.is_hidden(name)}
        while left:
            together = self._connected(left, left.copy().pop())
            assert len(together) >= enough, f"{together} lie open"
            left -= together

    def _connected(self, among: Collection[str], start: str) -> set[str]:
        """Those among whom masks are left that cancel in their sum alone."""
        found, fresh = {start}, {start}
        while fresh:
            fresh = {n for name in fresh for n in self.partners(name) if n in among} - found
            found |= fresh
        return found
