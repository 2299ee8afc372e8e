"""One domain's part in the rounds of an approved plan, as a state machine.

    open -> (advertise -> share -> reveal -> confirm -> unmask) per attempt -> finish

The domains' ledger heads travel along: `advertise` tells which heads are held of the peers, `share`
shows this ledger's head with the reservation in it, `reveal` refuses unless every peer's head is in
order and co-signs it, `confirm` gives the co-signatures, `unmask` takes those under our own.

An attempt moves forward only. `share` reserves the release in the ledger before anything is
computed; `reveal` adds the noise and charges the release, durably, before the masked input can
leave. What was answered is kept, so that asking again gives the same bytes and nothing new. What a
crash leaves reserved but not charged was never sent, and that attempt is never continued: when the
node starts again, it is voided if its sum was made, and charged if the crash may have come of
making it. What was charged can still be confirmed and unmasked after a crash.
The protocol itself is `network.smpc.aggregation`, or `network.smpc.ckks` where the plan says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from domains.attempts import Attempt, AttemptFiles, Attempts, write_durably
from domains.charging import charged_input
from domains.coming_noise import ComingNoise
from domains.cosigning import event_of, held_of_peers, keeping_cosignatures, peers_of
from domains.dataset import PrivateDataset
from domains.enclosure import EnclosureFailed, SumFailed
from domains.noised import noised, noised_sum
from domains.open_runs import OpenRuns
from domains.refusals import RoundRefused
from domains.runs import OpenRun
from domains.states import Octets, load_state, read_state
from domains.tensors import KeptTensors
from domains.wire import WIRES
from network.smpc.agreement import agreement_of
from network.smpc.attempt import Context
from network.smpc.messages import Receipt
from policies.canonical import canonical, sha256_hex
from policies.ledger import Ledger
from policies.ledger.heads import Cosignature
from policies.plan import Plan


class Participation:
    """What one domain does when asked to take part in rounds.

    Args:
        name: this domain's name on rosters.
        signing_key: the node's Ed25519 key.
        ledger: this domain's ledger; decides every release.
        folder: where the answers of attempts and released models are kept (0700).
        why_not_roster: why a plan's partners aren't those pinned here; no round goes on with them.
        spu: the file where the owner says where SPU is; `domains.comparing`.
    """

    def __init__(
        self,
        name: str,
        signing_key: Ed25519PrivateKey,
        ledger: Ledger,
        folder: Path,
        why_not_roster: Callable[[Plan], str | None] = lambda plan: None,
        spu: Path | None = None,
    ) -> None:
        self._name = name
        self._signing_key = signing_key
        self._ledger = ledger
        self._folder = folder
        self._attempts = Attempts(ledger, folder)
        self._open_runs = OpenRuns(
            name, signing_key, self._attempts, ledger, folder, why_not_roster, spu
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._attempts.end_what_a_crash_left()

    def open(self, plan: Plan, approvals: Mapping[str, str], dataset: PrivateDataset) -> None:
        """See `OpenRuns.open`."""
        self._open_runs.open(plan, approvals, dataset)

    @contextmanager
    def tensors(self, plan_hash: str) -> Iterator[KeptTensors]:
        """The tensors of a run, while nothing else goes on in it.

        Raises:
            RoundRefused: the run isn't open or approved (any longer), or the engine failed.
        """
        run = self._open_runs.of(plan_hash)
        with run.lock:
            try:
                yield run.tensors
            except EnclosureFailed as error:
                run.close_enclosure()
                raise RoundRefused(f"{self._name}: {error}") from None

    def advertise(
        self, plan_hash: str, step: str, release: int, attempt: int, tensor: str = ""
    ) -> tuple[Any, Mapping[str, Sequence[int]]]:
        """Start an attempt: fresh ephemeral keys, signed for this attempt alone.

        Also gives, by peer, the sizes of the ledger heads that this domain holds of it.

        `tensor`: which tensor a kept step's release reveals, as in `Context`.

        An earlier attempt that never revealed is voided: its masked input can't be sent any more.
        One that revealed stays charged, and can be unmasked until this one is shared.
        """
        return self._begin(self._open_runs.of(plan_hash), step, release, attempt, tensor)

    def follow(self, plan_hash: str, *where: Any) -> tuple[Any, Mapping[str, Sequence[int]]]:
        """The same, within a call about another attempt of the run, which asked for it already."""
        return self._begin(self._open_runs.asked_for(plan_hash), *where)

    def _begin(
        self, run: OpenRun, step: str, release: int, attempt: int, tensor: str
    ) -> tuple[Any, Mapping[str, Sequence[int]]]:
        with run.lock:
            why = run.why_not(step, release, tensor)
            if why is not None:
                raise RoundRefused(f"{self._name}: {why}")
            context = Context(run.plan.hash, step, release, attempt, tensor)
            if run.attempt is not None and run.attempt.context == context and _unshared(run):
                return run.attempt.party.advertise(), run.attempt.held
            if self._attempts.state_of(context) is not None:
                raise RoundRefused(f"{self._name}: attempt {attempt} was used; take the next one.")
            self._drop_attempt(run, "superseded by a new attempt")
            files = self._attempts.files(context)
            run.attempt = Attempt(
                context,
                self._party(run.plan, context, files),
                files,
                held_of_peers(self._ledger, run.plan, self._name),
                None if tensor else ComingNoise(run.plan, run.plan.step(step)),
            )
            return run.attempt.party.advertise(), run.attempt.held

    def hold(self, plan_hash: str, digest: str, size: int, begin: int, part: Octets) -> int:
        """Take one part of a state; the parts come in order, the first one replaces another state.

        Args:
            digest: BLAKE3 of the whole state, hex; size: of the whole, in bytes.
            begin: where the part belongs.

        Returns:
            How many bytes are held.

        Raises:
            RoundRefused: too large, out of order, or the whole doesn't have the digest.
        """
        run = self._open_runs.of(plan_hash)
        with run.lock:
            return run.hold(digest, size, begin, part)

    def held_state(self, plan_hash: str) -> str:
        """The digest of the state that is held of a run, so that it needn't be sent again."""
        held = self._open_runs.asked_for(plan_hash).state
        return held.digest if held is not None and held.complete else ""

    def share(
        self,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        adverts: Sequence[Any],
        state: Octets | str,
        held: Mapping[str, Sequence[int]],
    ) -> tuple[list[Any], dict[str, Any]]:
        """Compute this domain's private sum and share this attempt's secrets.

        The charge is reserved durably first; the sum meets its noise in `reveal`, which waits for
        it. Only sealed shares are returned; they are independent of the data.

        Args:
            adverts: the attempt's adverts, of at least tau domains.
            state: the public state as safetensors, exactly the step's tensors; or the digest of
                the one held.
            held: by peer, the sizes of the heads of this ledger that it says it holds.

        Returns:
            The sealed shares, and what the ledger shows the peers (`Heads.note`).
        """
        run = self._open_runs.of(plan_hash)
        with run.lock:
            current = self._current(run, Context(plan_hash, step, release, attempt))
            if current.shared:
                raise RoundRefused(f"{self._name}: this attempt was shared already.")
            sealed = current.party.share(adverts)
            definition = run.plan.step(step)
            tensor = current.context.tensor
            if tensor:
                value, clip_norm = run.tensors.revealable(tensor, definition)
            else:
                tensors = read_state(definition, run.state_of(state).file)
            entry = self._ledger.reserve(
                plan_hash, step, release, attempt, event_of(definition), run.until()
            )
            self._attempts.give_up_charged(plan_hash)
            try:
                if current.noise is None:
                    whole = value.view(np.int64).copy()
                    current.value = noised(run, definition, whole, clip_norm, 1)
                else:
                    current.summed = noised_sum(run, definition, tensors, current.noise)
            except SumFailed as error:
                run.close_enclosure()
                current.spent = True
                self._drop_attempt(run, str(error))
                raise RoundRefused(f"{self._name}: {error}") from None
            except EnclosureFailed as error:
                run.close_enclosure()
                self._drop_attempt(run, "the engine didn't start")
                raise RoundRefused(f"{self._name}: {error}") from None
            self._attempts.summed(current.context)
            return sealed, self._ledger.heads.note(entry, held)

    def reveal(
        self,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        sealed: Sequence[Any],
        notes: Mapping[str, Any],
    ) -> tuple[Receipt, NDArray]:
        """This domain's masked input, signed; charged before it is returned.

        Args:
            sealed: what the other members dealt to this domain.
            notes: what the other members' ledgers show, by name.

        Raises:
            HeadRefused: a member's ledger was rolled back or rewritten, or hasn't set this release
                aside.
        """
        run = self._open_runs.of(plan_hash)
        context = Context(plan_hash, step, release, attempt)
        with run.lock:
            if self._attempts.state_of(context) == "charged":
                return self._masked(run.plan, context)
            current = self._current(run, context)
            if not current.shared:
                raise RoundRefused(f"{self._name}: nothing was shared in this attempt yet.")
            self._attempts.reveals(context)
            answer = charged_input(
                self._ledger, run.plan, self._name, current, sealed, notes, run.confirmed
            )
            run.attempt = None
            return answer

    def revealed(
        self, plan_hash: str, step: str, release: int, attempt: int
    ) -> tuple[Receipt, NDArray]:
        """What `reveal` answered, again.

        Raises:
            RoundRefused: nothing was.
        """
        run = self._open_runs.of(plan_hash)
        context = Context(plan_hash, step, release, attempt)
        with run.lock:
            if self._attempts.state_of(context) != "charged":
                raise RoundRefused(f"{self._name}: nothing was revealed in this attempt yet.")
            return self._masked(run.plan, context)

    def _masked(self, plan: Plan, context: Context) -> tuple[Receipt, NDArray]:
        kept = self._party(plan, context, self._attempts.files(context)).masked()
        if kept is None:
            raise RoundRefused(f"{self._name}: this attempt's masked input is gone.")
        return kept

    def confirm(
        self,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        receipts: Sequence[Receipt],
        *more: Any,
    ) -> tuple[Any, list[Cosignature]]:
        """Sign the one set of masked inputs that this domain will help to open.

        Also gives this domain's signatures under its peers' ledger heads.

        Args:
            more: under CKKS, the digest of the sum of the ciphertexts.
        """
        run = self._open_runs.of(plan_hash)
        context = Context(plan_hash, step, release, attempt)
        with run.lock, self._charged(context) as files:
            confirmation = self._party(run.plan, context, files).confirm(receipts, *more)
            opened = {receipt.domain: receipt.digest.hex() for receipt in receipts}
            inputs = sha256_hex(canonical(opened))
            if self._ledger.settle(plan_hash, step, release, attempt, inputs, opened):
                run.confirmed.settled(context)
            return confirmation, self._ledger.heads.cosignatures(
                peers_of(run.plan, self._name).values()
            )

    def unmask(
        self,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        confirmations: Sequence[Any],
        cosignatures: Mapping[str, Sequence[Cosignature]],
        *more: Any,
    ) -> Any:
        """This domain's shares of what masks the confirmed total; erased here once answered.

        Args:
            cosignatures: by domain, its signatures under this ledger's heads; nothing is opened
                before every other domain that confirmed has co-signed.
            more: under CKKS, the sum of the ciphertexts at the key holder, None at the others.
        """
        run = self._open_runs.of(plan_hash)
        context = Context(plan_hash, step, release, attempt)
        confirmed = {each.domain for each in confirmations}
        kept = keeping_cosignatures(self._ledger, run.plan, self._name, confirmed, cosignatures)
        with run.lock, self._charged(context) as files, kept:
            answer = self._party(run.plan, context, files).unmask(confirmations, *more)
            run.confirmed.opened(context, confirmed)
            return answer

    def finish(self, plan_hash: str, state: Octets | str) -> None:
        """End the run: every user's memory is computed and stays here; the model is kept.

        What the plan held of the budget but never used goes back.

        Args:
            state: what memory and scores are computed from, as safetensors, or the digest of the
                one held; looked at only where the plan has a memory.
        """
        run = self._open_runs.of(plan_hash)
        with run.lock:
            self._drop_attempt(run, "the run ended")
            if run.plan.memory is not None:
                model = run.state_of(state).file
                tensors = load_state(model)
                with mmap(model.fileno(), 0, access=ACCESS_READ) as content:
                    write_durably(self.model_file(plan_hash), content)
                run.enclosure().memory(tensors)
            run.close_enclosure()
            run.tensors.clear()
            self._ledger.close(plan_hash, "finished")
            self._attempts.forget(plan_hash)
        self._open_runs.remove(plan_hash)

    def model_file(self, plan_hash: str) -> Path:
        return self._folder / f"{plan_hash}.model.safetensors"

    def close(self) -> None:
        """Stop all engines; what was reserved and not revealed is voided."""
        for run in self._open_runs:
            run.close_enclosure()  # so that whoever has the run's lock needn't wait for an engine
            with run.lock:
                self._drop_attempt(run, "the node stopped")

    def _current(self, run: OpenRun, context: Context) -> Attempt:
        live = run.attempt if run.attempt is not None and not run.attempt.over else None
        if live is None or replace(live.context, tensor="") != context:
            raise RoundRefused(
                f"{self._name}: this attempt is not the one advertised last (the node may have "
                "restarted). Start the next attempt."
            )
        return live

    def _party(self, plan: Plan, context: Context, files: AttemptFiles) -> Any:
        agreement = agreement_of(
            plan, context.step, context.release, context.attempt, context.tensor
        )
        return WIRES[plan.aggregation].party(self._name, agreement, self._signing_key, files)

    def _charged(self, context: Context) -> AttemptFiles:
        if self._attempts.state_of(context) != "charged":
            raise RoundRefused(f"{self._name}: nothing was revealed in this attempt yet.")
        return self._attempts.files(context)

    def _drop_attempt(self, run: OpenRun, reason: str) -> None:
        """End the live attempt: given back, unless its end told something already."""
        if run.attempt is None:
            return
        run.attempt.erase()
        if run.attempt.spent:
            self._attempts.spend(run.attempt.context)
        else:
            self._attempts.void(run.attempt.context, reason)
        # Not before the ledger has it: where it can't be written, the next call tries again.
        run.attempt = None


def _unshared(run: OpenRun) -> bool:
    return run.attempt is not None and not (run.attempt.shared or run.attempt.over)
