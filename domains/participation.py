"""One domain's part in the rounds of an approved plan, as a state machine.

    open -> (advertise -> share -> reveal -> confirm -> unmask) per attempt -> finish

The domains' ledger heads travel along: `advertise` tells which heads are held of the peers, `share`
shows this ledger's head with the reservation in it, `reveal` refuses unless every peer's head is in
order and co-signs it, `confirm` gives the co-signatures, `unmask` takes those under our own.

An attempt moves forward only. `share` reserves the release in the ledger before anything is
computed; `reveal` charges it, durably, before the masked input can leave. What was answered is
kept, so that asking again gives the same bytes and nothing new. What a crash leaves reserved but
not charged was never sent: it is voided when the node starts again, and that attempt is never
continued. What was charged can still be confirmed and unmasked after a crash. The protocol itself
is `network.smpc.aggregation`, or `network.smpc.ckks` where the plan says so.
"""

import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from domains.dataset import PrivateDataset
from domains.enclosure import Enclosure, EnclosureFailed
from domains.tensors import KeptTensors, Memory
from domains.wire import WIRES
from network.smpc.agreement import agreement_of
from network.smpc.messages import (
    Context,
    Receipt,
)
from network.smpc.neighbours import SPARSE_ABOVE
from policies.accounting import Event
from policies.canonical import canonical, sha256_hex
from policies.envelopes import read_consent, why_not_approved
from policies.ledger import Ledger
from policies.ledger.heads import Cosignature, Note, Shown
from policies.ledger.heads import Release as Reserved
from policies.mechanism import add_noise_share, sample_users
from policies.noise import SecureRandom
from policies.plan import Plan, Step

MAX_STATE_BYTES = 2**29
_STATE_HEADER = 2**20
_NOISED_AT_A_TIME = 2**20
_MAPPED_BYTES = 2**20
"""What an attempt's file holds beyond this is mapped, not read."""


class RoundRefused(Exception):
    """This node won't take the step asked for; the text says why and what would be right."""


@dataclass
class _Attempt:
    """The live attempt: its keys and vector are in memory only and die with it."""

    context: Context
    party: Any
    """The protocol's side of it: `Wire.party`."""
    held: Mapping[str, Sequence[int]]
    """By peer, the sizes of the ledger heads held of it when the attempt began."""
    value: NDArray[np.int64] | None = None

    def erase(self) -> None:
        self.party.abandon()
        if self.value is not None:
            self.value[:] = 0
            self.value = None


class _AttemptFiles:
    """What this domain answered in one attempt, as files; see `network.smpc.aggregation.Store`."""

    def __init__(self, folder: Path, context: Context) -> None:
        self._folder = folder
        # The ledger lets an attempt reveal one thing only, so its files need no tensor's name.
        self._digest = hashlib.sha256(replace(context, tensor="").bytes).hexdigest()

    def read(self, name: str) -> bytes | mmap.mmap | None:
        path = self._path(name)
        if not path.exists():
            return None
        if path.stat().st_size <= _MAPPED_BYTES:
            return path.read_bytes()
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def write(self, name: str, content: bytes | memoryview) -> None:
        _write_durably(self._path(name), content)

    def erase(self, name: str) -> None:
        path = self._path(name)
        if path.exists():
            # What was written may have been copied by the file system; that is the owner's disk.
            _overwrite(path)
            path.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._digest}.{name}"


@dataclass
class _State:
    """A public state as it comes, part by part."""

    digest: str
    content: bytearray | bytes
    held: int = 0

    @property
    def complete(self) -> bool:
        return self.held == len(self.content)


class _OpenRun:
    """A plan being executed here: its checked approvals, its engine, its one live attempt."""

    tensors: KeptTensors

    def __init__(self, plan: Plan, approvals: Mapping[str, str], dataset: PrivateDataset) -> None:
        self.plan = plan
        self.approvals = dict(approvals)
        self.dataset = dataset
        self.lock = threading.Lock()
        self.attempt: _Attempt | None = None
        self.state: _State | None = None
        self._enclosure: Enclosure | None = None

    def missing(self) -> str | None:
        """Why some owner on the roster has not approved this run, or not any longer."""
        for entry in self.plan.roster:
            why = why_not_approved(
                self.plan, entry.owner_key, entry.name, self.approvals.get(entry.name)
            )
            if why is not None:
                return why
        return None

    def until(self) -> str:
        """When the first of the approvals expires."""
        found = (
            read_consent(entry.owner_key, entry.name, self.approvals.get(entry.name))
            for entry in self.plan.roster
        )
        return min(consent.expires for consent in found if consent is not None)

    def content_of(self, state: bytes | str) -> bytes:
        """A state as it came, which is held from now on; or the held one, by its digest."""
        if isinstance(state, bytes):
            digest = blake3(state).hexdigest()
            self.state = _State(digest, state, len(state))
        held = self.state
        if held is None or not held.complete or (isinstance(state, str) and state != held.digest):
            raise RoundRefused("This node holds no such state; send it.")
        return bytes(held.content)

    def enclosure(self) -> Enclosure:
        if self._enclosure is not None and not self._enclosure.alive:
            self.close_enclosure()
        if self._enclosure is None:
            self._enclosure = self.dataset.enclosure(self.plan.to_json())
        return self._enclosure

    def sum_of(self, step: Step, state: bytes | str) -> NDArray[np.int64]:
        """This domain's part of a kept step; all users take part, so no coins are tossed."""
        tensors = read_state(step, self.content_of(state))
        everybody = np.ones(self.dataset.users, dtype=bool)
        return self.enclosure().private_sum(step.name, tensors, everybody)

    def close_enclosure(self) -> None:
        if self._enclosure is not None:
            self._enclosure.close()
            self._enclosure = None


class Participation:
    """What one domain does when asked to take part in rounds.

    Args:
        name: this domain's name on rosters.
        signing_key: the node's Ed25519 key.
        ledger: this domain's ledger; decides every release.
        folder: where the answers of attempts and released models are kept (0700).
        why_not_roster: why a plan's partners aren't those pinned here; no round goes on with them.
    """

    def __init__(
        self,
        name: str,
        signing_key: Ed25519PrivateKey,
        ledger: Ledger,
        folder: Path,
        why_not_roster: Callable[[Plan], str | None] = lambda plan: None,
    ) -> None:
        self._name = name
        self._why_not_roster = why_not_roster
        self._signing_key = signing_key
        self._ledger = ledger
        self._folder = folder
        self._runs: dict[str, _OpenRun] = {}
        self._memory = Memory()
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._void_what_a_crash_left()

    def open(self, plan: Plan, approvals: Mapping[str, str], dataset: PrivateDataset) -> None:
        """Begin or take up again the run of a plan that every owner on its roster approved.

        Args:
            plan: the plan as submitted here.
            approvals: every roster member's signed approval, or the signed envelope that covers
                the plan, by name.
            dataset: the data set the plan names.

        Raises:
            RoundRefused: not approved here, or a partner's signature is missing or wrong.
        """
        status = self._ledger.status(plan.hash)
        if status != "approved":
            raise RoundRefused(f"{self._name}: this plan is {status} here, so it can't run.")
        run = _OpenRun(plan, approvals, dataset)
        run.tensors = KeptTensors(self._name, plan, self._signing_key, run.sum_of, self._memory)
        missing = run.missing() or self._why_not_roster(plan)
        if missing is not None:
            raise RoundRefused(f"{self._name}: {missing}.")
        with self._lock:
            self._runs.setdefault(plan.hash, run)
            for other in self._runs.values():
                if self._ledger.status(other.plan.hash) != "approved":
                    other.tensors.clear()

    @contextmanager
    def tensors(self, plan_hash: str) -> Iterator[KeptTensors]:
        """The tensors of a run, while nothing else goes on in it.

        Raises:
            RoundRefused: the run isn't open or approved (any longer), or the engine failed.
        """
        run = self._run(plan_hash)
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
        One that revealed but was never unmasked stays charged, and can't be unmasked any more.
        """
        run = self._run(plan_hash)
        with run.lock:
            self._require_release(run.plan, step, release)
            self._require_tensor(run, step, tensor)
            context = Context(plan_hash, step, release, attempt, tensor)
            if run.attempt is not None and run.attempt.context == context and _unshared(run):
                return run.attempt.party.advertise(), run.attempt.held
            if self._state_of(context) is not None:
                raise RoundRefused(f"{self._name}: attempt {attempt} was used; take the next one.")
            self._drop_attempt(run, "superseded by a new attempt")
            self._give_up_charged(plan_hash)
            run.attempt = _Attempt(context, self._party(run.plan, context), self._held(run.plan))
            return run.attempt.party.advertise(), run.attempt.held

    def hold(self, plan_hash: str, digest: str, size: int, begin: int, part: bytes) -> int:
        """Take one part of a state; the parts come in order, the first one replaces another state.

        Args:
            digest: BLAKE3 of the whole state, hex.
            size: of the whole state, in bytes.
            begin: where the part belongs.

        Returns:
            How many bytes are held.

        Raises:
            RoundRefused: too large, out of order, or the whole doesn't have the digest.
        """
        run = self._run(plan_hash)
        with run.lock:
            limit = max(_state_limit(step) for step in run.plan.steps)
            if not 0 < size <= limit:
                raise RoundRefused(f"The state has {size} bytes; at most {limit} pass.")
            if begin == 0:
                run.state = _State(digest, bytearray(size))
            held = run.state
            wanted = (digest, size, begin)
            if held is None or (held.digest, len(held.content), held.held) != wanted:
                raise RoundRefused("The parts of a state come in order, from its beginning.")
            if begin + len(part) > size or not isinstance(held.content, bytearray):
                raise RoundRefused("The part goes beyond the state's end.")
            held.content[begin : begin + len(part)] = part
            held.held += len(part)
            if held.complete:
                held.content = bytes(held.content)
                if blake3(held.content).hexdigest() != digest:
                    run.state = None
                    raise RoundRefused("The state isn't the one that its digest names.")
            return held.held

    def held_state(self, plan_hash: str) -> str:
        """The digest of the state that is held of a run, so that it needn't be sent again."""
        held = self._run(plan_hash).state
        return held.digest if held is not None and held.complete else ""

    def share(
        self,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        adverts: Sequence[Any],
        state: bytes | str,
        held: Mapping[str, Sequence[int]],
    ) -> tuple[list[Any], dict[str, Any]]:
        """Compute this domain's noised private sum and share this attempt's secrets.

        The charge is reserved durably first. Only sealed shares are returned; they are independent
        of the data.

        Args:
            adverts: the attempt's adverts, of at least tau domains.
            state: the public state as safetensors, exactly the step's tensors; or the digest of
                the one held.
            held: by peer, the sizes of the heads of this ledger that it says it holds.

        Returns:
            The sealed shares, and what the ledger shows the peers (`Heads.note`).
        """
        run = self._run(plan_hash)
        with run.lock:
            current = self._current(run, Context(plan_hash, step, release, attempt))
            if current.value is not None:
                raise RoundRefused(f"{self._name}: this attempt was shared already.")
            sealed = current.party.share(adverts)
            definition = run.plan.step(step)
            tensor = current.context.tensor
            if tensor:
                value, clip_norm = run.tensors.revealable(tensor, definition)
            else:
                tensors = read_state(definition, run.content_of(state))
            entry = self._ledger.reserve(
                plan_hash, step, release, attempt, _event(definition), run.until()
            )
            try:
                current.value = (
                    self._noised(run, definition, value.view(np.int64).copy(), clip_norm, 1)
                    if tensor
                    else self._noised_sum(run, definition, tensors)
                )
            except EnclosureFailed as error:
                run.close_enclosure()
                self._drop_attempt(run, "the engine failed before anything was shared")
                raise RoundRefused(f"{self._name}: {error}") from None
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
        run = self._run(plan_hash)
        context = Context(plan_hash, step, release, attempt)
        with run.lock:
            if self._state_of(context) == "charged":
                return self._masked(run.plan, context)
            current = self._current(run, context)
            if current.value is None:
                raise RoundRefused(f"{self._name}: nothing was shared in this attempt yet.")
            self._cosign(run.plan, current, {each.sender for each in sealed}, notes)
            receipt, elements = current.party.mask(current.value, sealed)
            digest = hashlib.sha256(receipt.digest).hexdigest()
            self._ledger.charge(plan_hash, step, release, attempt, digest)
            run.attempt = None
            return receipt, elements

    def revealed(
        self, plan_hash: str, step: str, release: int, attempt: int
    ) -> tuple[Receipt, NDArray]:
        """What `reveal` answered, again.

        Raises:
            RoundRefused: nothing was.
        """
        run = self._run(plan_hash)
        context = Context(plan_hash, step, release, attempt)
        with run.lock:
            if self._state_of(context) != "charged":
                raise RoundRefused(f"{self._name}: nothing was revealed in this attempt yet.")
            return self._masked(run.plan, context)

    def _masked(self, plan: Plan, context: Context) -> tuple[Receipt, NDArray]:
        kept = self._party(plan, context).masked()
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
        run = self._run(plan_hash)
        with run.lock:
            confirmation = self._charged(plan_hash, step, release, attempt).confirm(receipts, *more)
            opened = {receipt.domain: receipt.digest.hex() for receipt in receipts}
            self._ledger.settle(plan_hash, step, release, attempt, sha256_hex(canonical(opened)))
            return confirmation, self._ledger.heads.cosignatures(
                _peers(run.plan, self._name).values()
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
        run = self._run(plan_hash)
        with run.lock:
            party = self._charged(plan_hash, step, release, attempt)
            self._keep(run.plan, {each.domain for each in confirmations}, cosignatures)
            return party.unmask(confirmations, *more)

    def finish(self, plan_hash: str, state: bytes) -> None:
        """End the run: every user's memory is computed and stays here; the model is kept.

        What the plan held of the budget but never used goes back.
        """
        run = self._run(plan_hash)
        with run.lock:
            self._drop_attempt(run, "the run ended")
            if run.plan.memory is not None:
                _write_durably(self.model_file(plan_hash), state)
                run.enclosure().memory(_load(state))
            run.close_enclosure()
            run.tensors.clear()
            self._ledger.close(plan_hash, "finished")
        with self._lock:
            del self._runs[plan_hash]

    def model_file(self, plan_hash: str) -> Path:
        return self._folder / f"{plan_hash}.model.safetensors"

    def close(self) -> None:
        """Stop all engines; what was reserved and not revealed is voided."""
        for run in self._runs.values():
            self._drop_attempt(run, "the node stopped")
            run.close_enclosure()

    def _noised_sum(
        self, run: _OpenRun, step: Step, state: dict[str, NDArray]
    ) -> NDArray[np.int64]:
        random = SecureRandom()
        selected = sample_users(run.dataset.users, step.sampling_rate, random)
        total = run.enclosure().private_sum(step.name, state, selected)
        return self._noised(run, step, total, step.clip_norm, step.scale)

    def _noised(
        self,
        run: _OpenRun,
        step: Step,
        total: NDArray[np.int64],
        clip_norm: float,
        scale: int,
    ) -> NDArray[np.int64]:
        if step.noise_multiplier == 0.0 and not run.dataset.public:
            raise RoundRefused(f"{self._name}: this data set is private; no sum leaves unnoised.")
        random = SecureRandom()
        # Block by block, so that the noise takes no second vector of memory.
        for begin in range(0, total.size, _NOISED_AT_A_TIME):
            part = total[begin : begin + _NOISED_AT_A_TIME]
            part[:] = add_noise_share(
                part,
                step.noise_multiplier,
                clip_norm,
                scale,
                run.plan.noise_shares,
                0,
                random,
            )
        return total

    def _held(self, plan: Plan) -> dict[str, list[int]]:
        peers = _peers(plan, self._name)
        held = self._ledger.heads.held(peers.values())
        return {name: held[key] for name, key in peers.items()}

    def _cosign(
        self, plan: Plan, attempt: _Attempt, members: set[str], notes: Mapping[str, Any]
    ) -> None:
        where, peers = attempt.context, _peers(plan, self._name)
        event = _event(plan.step(where.step))
        reserved = Reserved(plan.hash, where.step, where.release, where.attempt, event)
        if len(plan.roster) > SPARSE_ABOVE:
            members = members | set(notes)  # not only neighbours, who alone dealt shares to us
        shown = [
            Shown(Note.read(notes.get(name), name), name, peers[name], attempt.held[name])
            for name in sorted(members & set(peers))
        ]
        self._ledger.heads.cosign_all(shown, reserved)

    def _keep(
        self, plan: Plan, confirmed: set[str], cosignatures: Mapping[str, Sequence[Cosignature]]
    ) -> None:
        peers = _peers(plan, self._name)
        for name in peers:
            if name in confirmed and not cosignatures.get(name):
                raise RoundRefused(f"{self._name}: {name} has not co-signed this ledger's head.")
        self._ledger.heads.keep_all(
            [(each, n, key) for n, key in peers.items() for each in cosignatures.get(n, ())]
        )

    def _require_release(self, plan: Plan, step: str, release: int) -> None:
        if step not in {s.name for s in plan.steps}:
            raise RoundRefused(f"{self._name}: the plan has no step '{step[:64]}'.")
        if not 0 <= release < plan.step(step).releases:
            raise RoundRefused(
                f"{self._name}: step '{step}' has {plan.step(step).releases} approved releases; "
                f"number {release} is not one of them (they count from 0)."
            )

    def _require_tensor(self, run: _OpenRun, step: str, tensor: str) -> None:
        definition = run.plan.step(step)
        if bool(tensor) != (definition.kept is not None):
            raise RoundRefused(
                f"{self._name}: a kept step's release reveals a tensor, and no other step's does."
            )
        if tensor:
            run.tensors.revealable(tensor, definition)

    def _run(self, plan_hash: str) -> _OpenRun:
        run = self._runs.get(plan_hash)
        if run is None:
            raise RoundRefused(
                f"{self._name}: no run of this plan is open here. Take it up again: "
                "coterie run resume"
            )
        status = self._ledger.status(plan_hash)
        if status != "approved":
            raise RoundRefused(f"{self._name}: this plan is {status} here: {self._why(plan_hash)}")
        missing = run.missing() or self._why_not_roster(run.plan)
        if missing is not None:
            raise RoundRefused(f"{self._name}: {missing}.")
        return run

    def _why(self, plan_hash: str) -> str:
        """The reason of the last decision on a plan."""
        found = [p.reason for p in self._ledger.plans() if p.plan_hash == plan_hash]
        return found[0] if found else "never submitted"

    def _current(self, run: _OpenRun, context: Context) -> _Attempt:
        if run.attempt is None or replace(run.attempt.context, tensor="") != context:
            raise RoundRefused(
                f"{self._name}: this attempt is not the one advertised last (the node may have "
                "restarted). Start the next attempt."
            )
        return run.attempt

    def _party(self, plan: Plan, context: Context) -> Any:
        agreement = agreement_of(
            plan, context.step, context.release, context.attempt, context.tensor
        )
        files = _AttemptFiles(self._folder, context)
        return WIRES[plan.aggregation].party(self._name, agreement, self._signing_key, files)

    def _charged(self, plan_hash: str, step: str, release: int, attempt: int) -> Any:
        run = self._run(plan_hash)
        context = Context(plan_hash, step, release, attempt)
        if self._state_of(context) != "charged":
            raise RoundRefused(f"{self._name}: nothing was revealed in this attempt yet.")
        return self._party(run.plan, context)

    def _give_up_charged(self, plan_hash: str) -> None:
        """Erase the shares held for charged attempts that were never unmasked."""
        for step, release, attempt, state in self._ledger.attempts(plan_hash):
            if state == "charged":
                context = Context(plan_hash, step, release, attempt)
                _AttemptFiles(self._folder, context).erase("held")

    def _state_of(self, context: Context) -> str | None:
        asked = (context.step, context.release, context.attempt)
        for step, release, attempt, state in self._ledger.attempts(context.plan_hash):
            if (step, release, attempt) == asked:
                return state
        return None

    def _drop_attempt(self, run: _OpenRun, reason: str) -> None:
        if run.attempt is None:
            return
        context = run.attempt.context
        run.attempt.erase()
        run.attempt = None
        if self._state_of(context) == "reserved":
            self._erase(context)
            self._ledger.void(
                context.plan_hash, context.step, context.release, context.attempt, reason
            )

    def _void_what_a_crash_left(self) -> None:
        for plan in self._ledger.plans():
            for step, release, attempt, state in self._ledger.attempts(plan.plan_hash):
                if state == "reserved":
                    context = Context(plan.plan_hash, step, release, attempt)
                    self._erase(context)
                    self._ledger.void(
                        plan.plan_hash, step, release, attempt, "the node stopped before revealing"
                    )

    def _erase(self, context: Context) -> None:
        for name in ("held", "masked", "receipt"):
            _AttemptFiles(self._folder, context).erase(name)


def _state_limit(step: Step) -> int:
    """Most bytes that a state of the step's tensors may take as safetensors."""
    sizes = (spec.count * _itemsize(spec.dtype) for spec in step.state)
    return min(sum(sizes) + _STATE_HEADER, MAX_STATE_BYTES)


def _itemsize(dtype: str) -> int:
    return 1 if dtype == "bool" else np.dtype(dtype).itemsize


def read_state(step: Step, state: bytes) -> dict[str, NDArray]:
    """Parse a step's public state and check it against the approved names, shapes and dtypes.

    Raises:
        RoundRefused: too large, not safetensors, or another state than the step's.
    """
    limit = _state_limit(step)
    if len(state) > limit:
        raise RoundRefused(f"The state has {len(state)} bytes; at most {limit} pass.")
    tensors = _load(state)
    found = {(name, tuple(t.shape), str(t.dtype)) for name, t in tensors.items()}
    expected = {(spec.name, tuple(spec.shape), spec.dtype) for spec in step.state}
    if found != expected:
        raise RoundRefused(
            f"Step '{step.name}' takes the state {sorted(expected)}, got {sorted(found)}."
        )
    for name, tensor in tensors.items():
        # Admission counts on it: 200 as a truth value, made a whole number, would be an index.
        if tensor.dtype == bool and tensor.size and tensor.view(np.uint8).max() > 1:
            raise RoundRefused(f"The state '{name}' has truth values other than 0 and 1.")
    return tensors


def read_model(path: Path) -> dict[str, NDArray]:
    """The state a finished run left for `recommend`."""
    return _load(path.read_bytes())


def _load(state: bytes) -> dict[str, NDArray]:
    try:
        return safetensors.numpy.load(state)
    except Exception as error:
        raise RoundRefused(f"The state is not safetensors ({type(error).__name__}).") from None


def _peers(plan: Plan, me: str) -> dict[str, str]:
    """The other domains on the roster and their node keys."""
    return {entry.name: entry.node_key for entry in plan.roster if entry.name != me}


def _event(step: Step) -> Event:
    return Event(step.noise_multiplier, step.sampling_rate, 1)


def _unshared(run: _OpenRun) -> bool:
    return run.attempt is not None and run.attempt.value is None


def _overwrite(path: Path) -> None:
    left = path.stat().st_size
    with path.open("r+b") as file:
        while left > 0:
            left -= file.write(bytes(min(left, _MAPPED_BYTES)))


def _write_durably(path: Path, content: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        # The file and its folder at once: the disk then writes both in one go.
        folder = _FOLDERS.submit(_sync_folder, path.parent)
        os.fsync(file.fileno())
        folder.result()


def _sync_folder(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


_FOLDERS = ThreadPoolExecutor(1, thread_name_prefix="folders")
