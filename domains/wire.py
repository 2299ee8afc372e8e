"""What the messages of an attempt are, for each way in which a plan may have its sums made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from network.smpc.aggregation import Party, Store
from network.smpc.attempt import Agreement
from network.smpc.ckks.messages import (
    Joining,
    KeyAdvert,
    TaggedConfirmation,
    pack_ciphertexts,
    pack_opening,
)
from network.smpc.ckks.party import CkksParty
from network.smpc.messages import (
    Advert,
    Confirmation,
    OctetParts,
    SealedShares,
    pack_masked,
)

Packed = NDArray[np.uint8]


@dataclass(frozen=True)
class Wire:
    """The types and packing of one protocol's messages.

    Attributes:
        party: one domain's side of an attempt.
        advert, shared, confirmation: what the steps advertise, share and confirm answer, and the
            next ones are given.
        pack_input: (receipt, content, begin, size) -> that part of what `reveal` answers, as bytes.
        pack_opened: what `unmask` answers, as bytes or JSON-able values.
    """

    party: Callable[[str, Agreement, Ed25519PrivateKey, Store], Any]
    advert: type[Advert] | type[KeyAdvert]
    shared: type[SealedShares] | type[Joining]
    confirmation: type[Confirmation] | type[TaggedConfirmation]
    pack_input: Callable[..., OctetParts]
    pack_opened: Callable[[Any], Packed | Mapping[str, Any]]


WIRES: Mapping[str, Wire] = {
    "smpc": Wire(
        party=Party,
        advert=Advert,
        shared=SealedShares,
        confirmation=Confirmation,
        pack_input=pack_masked,
        pack_opened=lambda unmasking: unmasking.to_dict(),
    ),
    "ckks": Wire(
        party=CkksParty,
        advert=KeyAdvert,
        shared=Joining,
        confirmation=TaggedConfirmation,
        pack_input=lambda receipt, content, begin, size: OctetParts(
            (pack_ciphertexts(receipt, content)[begin : begin + size],)
        ),
        pack_opened=lambda opened: {} if opened is None else pack_opening(*opened),
    ),
}
"""By `Plan.aggregation`."""
