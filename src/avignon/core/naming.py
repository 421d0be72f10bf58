"""Names: without accents, as folders, as files, and those that are not UTF-8."""

import re
import unicodedata

NOT_UTF8 = "a name that is not UTF-8; give the file or folder another"


def without_accents(text: str) -> str:
    """Text without accents and with plain forms of its letters (NFKD): `Léger` as `Leger`, `ﬁ` as `fi`."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def shown(name: str) -> str:
    r"""A file's name as text: bytes that are not UTF-8, which Python keeps as surrogates, are written as `\xe4`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def slug(name: str) -> str:
    """A name as a folder: lower case ASCII letters, digits and hyphens; `Léger, Fernand` gives `leger-fernand`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def stem(object_id: str) -> str:
    """An object id as a file's name, which no other id has: what is not its own slug gets a mark of its own."""
    import hashlib  # Here, because the command line's help does not need it, and loading it takes a while.

    plain = slug(object_id)
    if plain == object_id and len(plain) <= 80:
        return plain
    return f"{plain[:80]}-{hashlib.sha256(object_id.encode()).hexdigest()[:8]}".strip("-")
