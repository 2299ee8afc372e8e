"""What a node answers about its accounts: one's own, and to its owner all of them."""

import json

from syft.serde.serializable import serializable
from syft.service.context import AuthedServiceContext
from syft.service.service import service_method
from syft.service.user.user_roles import DATA_OWNER_ROLE_LEVEL, GUEST_ROLE_LEVEL
from syft.types.errors import SyftException

from domains.accounts import AccountsError
from domains.answering import Answering, answering
from domains.paths import role_name


@serializable(canonical_name="CoterieMembers", version=1)
class CoterieMembers(Answering):
    """The `coterie.*` methods about accounts; Syft's own store has them."""

    @service_method(path="coterie.account", name="account", roles=GUEST_ROLE_LEVEL)
    @answering
    def account(self, context: AuthedServiceContext) -> str:
        """The caller's own account: email, role (owner, scientist or auditor), until when."""
        term = self.accounts.term(str(context.credentials))
        return json.dumps(
            {
                "email": self.email_of(context),
                "role": role_name(context.role),
                "until": None if term is None else term.until,
            }
        )

    @service_method(path="coterie.members", name="members", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def members(self, context: AuthedServiceContext) -> str:
        """Every account: email, verify key, role, until when, and whether it's over."""
        users = context.server.services.user
        found = []
        for user in users.stash.get_all(users.root_verify_key).unwrap():
            term = self.accounts.term(str(user.verify_key))
            found.append(
                {
                    "email": str(user.email),
                    "key": str(user.verify_key),
                    "role": user.role.name,
                    "until": term.until if term else None,
                    "over": self.accounts.why_ended(str(user.verify_key)) is not None,
                }
            )
        return json.dumps(found)

    @service_method(path="coterie.renew", name="renew", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def renew(self, context: AuthedServiceContext, email: str, days: int) -> str:
        """Let an account last so many days from now; one that was ended comes back."""
        key = self._member(context, email)
        return self.accounts.renew(key, email, days).until

    @service_method(path="coterie.expel", name="expel", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def expel(self, context: AuthedServiceContext, email: str, reason: str) -> str:
        """End an account now, and with it every open plan of its holder; gives their hashes."""
        key = self._member(context, email)
        self.accounts.end(key, email, reason)
        return json.dumps(self.desk.revoke_all(key, self.email_of(context), reason))

    def _member(self, context: AuthedServiceContext, email: str) -> str:
        """The verify key of somebody else's account."""
        users = context.server.services.user
        try:
            user = users.stash.get_by_email(users.root_verify_key, email=email).unwrap()
        except SyftException:
            raise AccountsError(
                "There is no account of that email: coterie domain members"
            ) from None
        if user.verify_key == users.root_verify_key:
            raise AccountsError("The owner's own account lasts.")
        return str(user.verify_key)
