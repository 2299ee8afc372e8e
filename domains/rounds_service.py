"""What a node answers about a run: its rounds, from the first advert to the end."""

import json
from contextlib import suppress
from typing import Any, cast

import numpy as np
from syft.serde.serializable import serializable
from syft.service.context import AuthedServiceContext
from syft.service.service import service_method
from syft.service.user.user_roles import DATA_SCIENTIST_ROLE_LEVEL

from domains.answering import REFUSALS, Answering, answering
from domains.arguments import (
    attempt_in,
    bytes_of,
    digest_of,
    json_list,
    json_object,
    listed,
    octets_of,
    sizes_of,
)
from domains.wire import WIRES
from network.smpc.agreement import agreement_of
from network.smpc.ckks.messages import read_residues
from network.smpc.messages import PART_BYTES, OctetParts, Receipt
from policies.ledger.heads import Cosignature


@serializable(canonical_name="CoterieRounds", version=1)
class CoterieRounds(Answering):
    """The `coterie.*` methods by which an approved plan runs, for its scientist."""

    @service_method(path="coterie.open", name="open", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def open(self, context: AuthedServiceContext, plan_hash: str, approvals: str) -> str:
        """Begin or take up a run; `approvals` are the owners' signatures by domain, as JSON."""
        plan = self.own_plan(context, plan_hash)
        signatures = json_object(approvals)
        self.participation.open(plan, signatures, self.desk.dataset(plan.dataset))
        return json.dumps(self.desk.progress(plan_hash))

    @service_method(path="coterie.progress", name="progress", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def progress(self, context: AuthedServiceContext, plan_hash: str) -> str:
        """Which attempts of which releases this domain has reserved, charged or voided."""
        self.own_plan(context, plan_hash)
        return json.dumps(self.desk.progress(plan_hash))

    @service_method(path="coterie.advertise", name="advertise", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def advertise(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        tensor: str = "",
    ) -> str:
        """Fresh ephemeral keys for one attempt, signed by this node.

        `tensor`: NAME/LENGTH of what a kept step's release reveals.

        Also the sizes of the peers' ledger heads it holds, and the digest of the state it holds.
        """
        self.own_plan(context, plan_hash)
        advert, held = self.participation.advertise(plan_hash, step, release, attempt, tensor)
        return json.dumps(self._begun(plan_hash, advert, held))

    def _begun(self, plan_hash: str, advert: Any, held: Any) -> dict[str, Any]:
        state = self.participation.held_state(plan_hash)
        return {"advert": advert.to_dict(), "held": held, "state": state}

    def _following(self, plan_hash: str, where: tuple[Any, ...]) -> dict[str, Any] | None:
        """Begin the attempt that a call names beside its own, if it names one and that can be."""
        if not where:
            return None
        with suppress(*REFUSALS):
            return self._begun(plan_hash, *self.participation.follow(plan_hash, *where))
        return None

    @service_method(path="coterie.share", name="share", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def share(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        adverts: str,
        state: np.ndarray,
        held: str,
        state_digest: str = "",
    ) -> str:
        """Compute the noised private sum, and answer the shares sealed for the peers.

        `state`: safetensors as bytes; none of them where `state_digest` names the state held here.

        `held`: by peer, the sizes of the heads it holds of this ledger; the answer's `note` shows
        the peers that the head now extends them and that this release is set aside in it.
        """
        wire = WIRES[self.own_plan(context, plan_hash).aggregation]
        parsed = [wire.advert.from_dict(advert) for advert in json_list(adverts)]
        sealed, note = self.participation.share(
            plan_hash,
            step,
            release,
            attempt,
            parsed,
            state_digest or octets_of(state),
            sizes_of(held),
        )
        return json.dumps({"sealed": [shares.to_dict() for shares in sealed], "note": note})

    @service_method(path="coterie.hold", name="hold", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def hold(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        state_digest: str,
        size: int,
        begin: int,
        part: np.ndarray,
    ) -> str:
        """Take one part of a state that is too long for `share`; gives the bytes held so far.

        `state_digest`: BLAKE3 of the whole state of `size` bytes, hex.
        """
        self.own_plan(context, plan_hash)
        held = self.participation.hold(plan_hash, state_digest, size, begin, octets_of(part))
        return json.dumps({"held": held})

    @service_method(path="coterie.reveal", name="reveal", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def reveal(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        seeds: str,
        notes: str,
        following: str = "",
    ) -> np.ndarray:
        """This domain's masked input and its receipt, as bytes; charged before it leaves.

        Refused unless the `notes` show every member's ledger in order. `following`: an attempt to
        begin afterwards, as JSON of what `advertise` takes; `confirm` answers what it does.
        """
        wire = WIRES[self.own_plan(context, plan_hash).aggregation]
        parsed = [wire.shared.from_dict(seed) for seed in json_list(seeds)]
        shown, then = json_object(notes), attempt_in(following)
        receipt, content = self.participation.reveal(
            plan_hash, step, release, attempt, parsed, shown
        )
        self._following(plan_hash, then)
        return _octets(wire.pack_input(receipt, content, 0, PART_BYTES))

    @service_method(path="coterie.masked", name="masked", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def masked(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        begin: int,
    ) -> np.ndarray:
        """What `reveal` answered, from byte `begin` on, at most 16 MiB of it."""
        wire = WIRES[self.own_plan(context, plan_hash).aggregation]
        receipt, content = self.participation.revealed(plan_hash, step, release, attempt)
        return _octets(wire.pack_input(receipt, content, max(0, begin), PART_BYTES))

    @service_method(path="coterie.confirm", name="confirm", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def confirm(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        receipts: str,
        total: str = "",
        following: str = "",
    ) -> str:
        """Sign the one set of masked inputs that this domain will help to open.

        Also gives this domain's signatures under its peers' ledger heads, and what `advertise`
        would say to the attempt `following`. `total`: under CKKS, the digest of the ciphertexts'
        sum.
        """
        plan = self.own_plan(context, plan_hash)
        parsed = [Receipt.from_dict(receipt) for receipt in json_list(receipts)]
        then = attempt_in(following)
        more = (digest_of(total),) if plan.aggregation == "ckks" else ()
        answer, signed = self.participation.confirm(
            plan_hash, step, release, attempt, parsed, *more
        )
        heads = [each.model_dump() for each in signed]
        begun = self._following(plan_hash, then)
        return json.dumps({"confirmation": answer.to_dict(), "cosignatures": heads, "begun": begun})

    @service_method(path="coterie.unmask", name="unmask", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def unmask(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        confirmations: str,
        cosignatures: str,
        total: np.ndarray | None = None,
    ) -> str | np.ndarray:
        """This domain's shares of what masks the total that at least tau domains confirmed.

        Refused until all of them co-signed this ledger's head. `total`: under CKKS, the
        ciphertexts' sum, which the key holder answers with the opened total.
        """
        plan = self.own_plan(context, plan_hash)
        wire = WIRES[plan.aggregation]
        parsed = [wire.confirmation.from_dict(each) for each in json_list(confirmations)]
        signed = {
            name: [Cosignature.read(each, name) for each in listed(found)]
            for name, found in json_object(cosignatures).items()
        }
        more: tuple[Any, ...] = ()
        if plan.aggregation == "ckks":
            agreement = agreement_of(plan, step, release, attempt)
            more = (None if total is None else read_residues(agreement, bytes_of(total)),)
        answer = wire.pack_opened(
            self.participation.unmask(plan_hash, step, release, attempt, parsed, signed, *more)
        )
        return answer if isinstance(answer, np.ndarray) else json.dumps(answer)

    @service_method(path="coterie.finish", name="finish", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def finish(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        state: np.ndarray,
        state_digest: str = "",
    ) -> str:
        """End the run; every user's memory is computed and stays on this node.

        `state`: what memory and scores are computed from, as safetensors; none where
        `state_digest` names the one that came by `hold`.
        """
        self.own_plan(context, plan_hash)
        self.participation.finish(plan_hash, state_digest or octets_of(state))
        return json.dumps({"status": self.desk.ledger.status(plan_hash)})


def _octets(parts: OctetParts) -> np.ndarray:
    """As what a method that Syft lists answers: a stream sends them as they are, Syft joined."""
    return cast(np.ndarray, parts)
