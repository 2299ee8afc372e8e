"""Whom an owner trusts if she approves a plan, in the words that she is shown."""

from policies.plan import Plan


def trusted(plan: Plan) -> list[str]:
    """Who could see what, and what must be true of others for the noise to be what is accounted."""
    return [*_aggregation(plan), *_two_domains(plan), *_dealer(plan), *_comparisons(plan)]


def _aggregation(plan: Plan) -> list[str]:
    """Who could see what of a sum, and how much noise is in it."""
    if plan.aggregation == "smpc":
        return [
            f"A coalition of up to {plan.collusion} of {len(plan.roster)} partners, the hub and "
            "the scientist sees no less noise than accounted."
        ]
    lines = [
        "Summed under homomorphic encryption (CKKS); each round another partner holds the key.",
        "  The hub, or the scientist who runs the round, can decrypt your sum alone together with "
        "one partner.",
    ]
    if not plan.public:
        lines += [
            "  Your domain therefore adds the full noise itself and is accounted alone: your sum "
            "has the noise",
            "  accounted below, whoever colludes.",
        ]
    return lines


def _two_domains(plan: Plan) -> list[str]:
    if not plan.two_domains:
        return []
    return [
        "TWO PARTNERS ONLY: each of you can subtract its own part from the total and then sees the "
        "other's total, under the full noise that the other added. That noise is what is accounted."
    ]


def _dealer(plan: Plan) -> list[str]:
    if plan.dealer is None:
        return []
    return [
        "SECRET PRODUCTS and truncations of this plan's kept tensors are possible: "
        f"{plan.dealer.name} ({plan.dealer.key}) deals for them.",
        "  It must be none of you, nor hub or scientist. Where they are used, you trust that it "
        "colludes with nobody:",
        "  together with the scientist or the hub it could read totals without noise. False "
        "dealings are caught.",
        "  You then also trust every partner's node to follow the protocol: one that lies about "
        "its own part",
        "  can make the others' stand out of the noise in a product. Sums and public maps don't "
        "need this.",
    ]


def _comparisons(plan: Plan) -> list[str]:
    if plan.comparisons is None:
        return []
    return [
        "COMPARISONS of this plan's kept tensors by SPU (ABY3) among you three are possible: an "
        "honest majority is assumed.",
        "  Where they are used, two of you together could read the third's sums without noise, and "
        "you trust",
        "  every partner's node to follow the protocol: one that deviates could read or falsify "
        "what is compared.",
    ]
