"""What a node says to calls that Syft would take and Coterie doesn't, and what to do instead."""

_INSTEAD = {
    "code": "Submitted code doesn't run here. Write a plan: coterie plan --help",
    "code_history": "Submitted code doesn't run here. Plans keep their history: coterie plan show",
    "user_code": "Submitted code doesn't run here. Write a plan: coterie plan --help",
    "policy": "Policies aren't code here. The owner's policy.toml decides, see docs/owner.md.",
    "api": "There are no twin endpoints. A plan is the only way to compute: coterie plan --help",
    "worker": "There are no workers. An approved plan runs in the node's own enclosure.",
    "worker_image": "No images are built or run. An approved plan runs in the node's enclosure.",
    "worker_pool": "There are no workers. An approved plan runs in the node's own enclosure.",
    "image_registry": "No images are built or run. A plan runs in the node's own enclosure.",
    "job": "There are no jobs. A run's progress is coterie.progress: coterie run --help",
    "queue": "There is no job queue. A run's progress is coterie.progress: coterie run --help",
    "output": "Results leave only as noised totals of an approved plan: coterie plan --help",
    "log": "Logs stay with the owner. A run's progress is coterie.progress.",
    "sync": "Nodes aren't synced. The owner copies the folder, see docs/data-lifecycle.md.",
    "migration": "Nodes aren't migrated over the network; see docs/data-lifecycle.md.",
    "blob_storage": "Files aren't served. Mocks are in dataset.get_all; rows never leave.",
    "action": "Objects aren't computed on or fetched, mocks neither. Use a plan and, to look at "
    "data, action.get_mock.",
    "dataset": "Data sets are declared by the owner on her machine: coterie data add --help",
    "project": "There are no projects. A plan is what partners agree on: coterie plan --help",
    "network": "Peers are pinned by the owner on her machine: coterie domain pin --help",
    "user": "Accounts are the owner's to make and change; ask her: coterie domain invite --help",
    "settings": "Settings are in the owner's domain.toml, see docs/owner.md.",
    "request": "Requests are the plans you submit, and the owner decides: coterie plan --help",
    "enclave": "Enclaves aren't part of Coterie. A plan runs in the node's own enclosure.",
    "attestation": "Enclaves aren't part of Coterie. A plan runs in the node's own enclosure.",
}


def refusal_of(path: str, role: str) -> str:
    """One sentence for a service path that this role may not call."""
    service = path.partition(".")[0]
    instead = _INSTEAD.get(service, "A plan is the only way to compute: coterie plan --help")
    named = path if len(path) <= 80 and path.isprintable() else "That path"
    return f"'{named}' is not served here to a {role.lower()}. {instead}"
