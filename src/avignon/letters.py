"""Letters: text without its accents, and names of files that are none."""

import unicodedata


def without_accents(text: str) -> str:
    """Text without accents and with plain forms of its letters (NFKD): `Léger` as `Leger`, `ﬁ` as `fi`."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def shown(name: str) -> str:
    r"""A file's name as text: bytes that are not UTF-8, which Python keeps as surrogates, are written as `\xe4`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
