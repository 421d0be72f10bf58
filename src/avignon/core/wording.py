"""Museums by their names."""

MUSEUMS = {"nga": "National Gallery of Art, Washington", "artic": "Art Institute of Chicago"}
"""Names for people, where the ledger has a short one."""


def museum_name(museum: str) -> str:
    """A museum as people call it; a folder's own name, and any other, stays as it is."""
    return MUSEUMS.get(museum, museum)
