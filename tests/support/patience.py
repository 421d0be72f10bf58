"""Requests to the tests' own servers wait for nobody."""

from avignon.museums.http import Fetcher

WAIT_TURN = Fetcher._wait_turn
"""What a user's requests do."""


def wait_elsewhere(fetcher: Fetcher, host: str) -> None:
    """Be polite to every host but this machine."""
    if not host.startswith("127.0.0.1"):
        WAIT_TURN(fetcher, host)
