"""Why a node takes no part in a round."""


class RoundRefused(Exception):
    """This node won't take the step asked for; the text says why and what would be right."""
