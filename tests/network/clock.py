"""A clock that tests set."""


class Clock:
    """Seconds; a call gives them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
