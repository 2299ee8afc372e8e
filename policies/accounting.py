"""What a sequence of releases costs: epsilon from mechanism events."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """`count` releases of one Poisson-sampled Gaussian mechanism.

    Attributes:
        noise_multiplier: standard deviation of the accounted noise over the L2 sensitivity;
            0 means no noise (public data only).
        sampling_rate: probability with which each user takes part in a release, in (0, 1].
        count: number of releases, at least 1.
    """

    noise_multiplier: float
    sampling_rate: float
    count: int
