"""How the program names itself: in cards, and to servers."""

from avignon import __version__


def homepage() -> str:
    """The project's address, from the installed package's metadata; empty where that has none."""
    from importlib import metadata  # Here, because a listing reads titles, and importing this takes longer than that.

    try:
        entries = metadata.metadata("avignon").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return ""
    places = {label.strip().lower(): place.strip() for label, _, place in (entry.partition(",") for entry in entries)}
    named = [places[label] for label in ("homepage", "home", "repository", "source", "source code") if label in places]
    return next((place for place in (*named, *places.values()) if place.startswith(("http://", "https://"))), "")


def program_link() -> str:
    """The program and its version in Markdown, linked to the homepage where there is one."""
    place = homepage()
    return f"[avignon {__version__}]({place})" if place else f"avignon {__version__}"


def user_agent(contact: str = "") -> str:
    """How the program names itself to servers (RFC 9110, 10.1.5), with the address of whoever runs it."""
    about = (f"+{homepage()}" if homepage() else "", contact, "museum open data", "one request at a time")
    return f"avignon/{__version__} ({'; '.join(filter(None, about))})"
