"""Which service paths a role may call; everything else is refused at the gate."""

from syft.service.user.user_roles import ServiceRole

_LEDGER_PATHS = frozenset(
    f"coterie.ledger{m}"
    for m in (
        "",
        "_counts",
        "_spends",
        "_timeline",
        "_page",
        "_entry",
        "_heads",
        "_cosigned",
        "_runs",
    )
)
PATHS = {
    ServiceRole.GUEST: frozenset(
        f"coterie.{m}" for m in ("account", "describe", "plan", "plans", "budgets", "verify")
    )
    | _LEDGER_PATHS
    | {"user.get_current_user", "metadata.get_metadata", "metadata"},
    ServiceRole.DATA_SCIENTIST: frozenset(
        f"coterie.{m}"
        for m in (
            "account", "describe", "quote", "submit", "plans", "plan", "budgets", "open",
            "progress",
            "advertise", "hold", "share", "reveal", "masked", "confirm", "unmask", "finish",
            "verify", "withdraw", "tell",
            "tensor_key", "tensor_share", "tensor_apply", "tensor_compute", "tensor_offer",
            "tensor_compare", "tensor_drop",
        )
    )
    | {
        "user.get_current_user", "metadata.get_metadata", "metadata",
        "dataset.get_all", "dataset.search", "action.get_mock",
        "request.get_all", "request.get_by_uid", "notifications.get_all_unread",
    },
}  # fmt: skip
_OWNER_PATHS = (
    PATHS[ServiceRole.DATA_SCIENTIST]
    | _LEDGER_PATHS
    | {f"coterie.{m}" for m in (
        "recommend", "load_report", "revoke", "preapprove", "envelopes", "discard",
        "members", "renew", "expel", "status", "weigh", "rules", "preview_rules", "write_rules",
    )}
    | {
        "user.create", "user.get_all", "user.update", "user.delete", "user.search", "user.view",
        "user.get_index", "user.get_by_verify_key", "dataset.get_by_id",
        "request.apply", "request.undo", "request.get_all_pending",
        "request.get_all_approved", "request.get_all_rejected", "request.get_all_info",
        "settings.get", "notifications.get_all", "notifications.mark_as_read",
    }
)  # fmt: skip


def paths_of(role: ServiceRole) -> frozenset[str]:
    """The service paths a role may call; no path here runs submitted code."""
    if role.value >= ServiceRole.DATA_OWNER.value:
        return frozenset(_OWNER_PATHS)
    return PATHS.get(role, frozenset())


def role_name(role: ServiceRole) -> str:
    """What a role is called here: 'owner', 'scientist' or 'auditor'."""
    if role.value >= ServiceRole.DATA_OWNER.value:
        return "owner"
    return "scientist" if role == ServiceRole.DATA_SCIENTIST else "auditor"
