"""What a node's metrics tell: counts of requests and whole minutes, nothing finer."""

from importlib.metadata import version

from network.health import Health


def test_metrics_are_small_whole_numbers_about_nobody() -> None:
    health = Health()
    for status in (200, 200, 404, 429, 500, 302):
        health.count(status)
    lines = [each for each in health.metrics().decode().splitlines() if each[0] != "#"]
    figures = {name: float(figure) for name, figure in (line.rsplit(" ", 1) for line in lines)}
    assert figures.pop(f'coterie_info{{version="{version("coterie")}"}}') == 1
    assert figures == {
        'coterie_requests_total{outcome="answered"}': 2,
        'coterie_requests_total{outcome="refused"}': 3,
        'coterie_requests_total{outcome="failed"}': 1,
        "coterie_uptime_minutes": 0,
    }
