"""Changes of an owner's rules, as the ledger records them: who, when, why and what."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from policies.ledger.chain import Chain
from policies.ledger.database import Database
from policies.ledger.tables import ENTRIES, MENTIONS

_RULES = (
    select(ENTRIES.c.body)
    .join(MENTIONS, MENTIONS.c.index == ENTRIES.c.index)
    .where(MENTIONS.c.kind == "rules")
    .order_by(ENTRIES.c.index.desc())
)


class Amendments:
    """The 'rules' entries of one ledger."""

    def __init__(self, database: Database, chain: Chain) -> None:
        self._database = database
        self._chain = chain

    def record(
        self,
        population: str,
        data_set: str,
        replaces: str,
        rules: str,
        changes: Sequence[Sequence[str]],
        *,
        by: str,
        reason: str,
        owner_key: str = "",
        signature: str = "",
    ) -> None:
        """Record that other rules apply from now on.

        Args:
            population: whose data the data set holds.
            replaces, rules: SHA-256 of the policy file before and now, hex.
            changes: [setting, before, after] of each setting that differs, as text.
            owner_key, signature: what the owner signed; empty: the file itself was changed on the
                node's machine, and the node found that when it started.
        """
        with self._database.writing() as connection:
            self._chain.append(
                connection,
                "rules",
                population=population,
                data_set=data_set,
                replaces=replaces,
                rules=rules,
                changes=[list(change) for change in changes],
                by=by,
                reason=reason,
                owner_key=owner_key,
                signature=signature,
            )

    def of(self, data_set: str) -> list[dict[str, Any]]:
        """Every change of a data set's rules, newest first, as `record` was told, with `time`."""
        with self._database.reading() as connection:
            found = [json.loads(body) for body in connection.execute(_RULES).scalars()]
        return [body for body in found if body["data_set"] == data_set]
