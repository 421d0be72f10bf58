"""What lies in a folder of one's own: pictures, files that look like pictures but are not read, and the rest."""

import functools
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from avignon.core.errors import InputError
from avignon.core.formats import SUFFIXES
from avignon.core.naming import shown
from avignon.museums import words


@functools.cache
def _kinds() -> dict[str, frozenset[str]]:
    """Suffixes and names by what they are: `unread`, `system`."""
    tables = words.vocabulary("files.toml").items()
    return {kind: frozenset(each for names in table.values() for each in names) for kind, table in tables}


TABLES = frozenset({".csv", ".tsv", ".xls", ".xlsx", ".xlsm", ".ods", ".numbers"})
"""Files in which one may look for an index."""


@dataclass(frozen=True)
class Files:
    """A folder's files by their place in it, with forward slashes, sorted; without hidden ones and a system's own."""

    root: Path
    all: tuple[str, ...]
    links: tuple[str, ...] = ()
    """Linked folders below the first level, which are not followed: they may form a cycle."""
    not_utf8: frozenset[str] = frozenset()
    """Those of `all` whose names are not UTF-8, as an archive from Windows leaves them; they are here as shown."""

    @functools.cached_property
    def pictures(self) -> tuple[str, ...]:
        """What is a picture by its name, whether it is read or not."""
        return tuple(each for each in self.all if _suffix(each) in _kinds()["unread"] or is_read(each))

    @functools.cached_property
    def by_name(self) -> dict[str, str]:
        """Each file by its composed name: systems differ in how they write an accent."""
        return {composed(each): each for each in self.all}

    def nearest(self, name: str) -> str:
        """The file that is probably meant by a name that is none: other case, folder or suffix, or a slip; or empty."""
        meant, known = _parts(name), [(_parts(each), file) for each, file in self.by_name.items()]
        for part in range(len(meant)):
            if file := next((file for parts, file in known if parts[part] == meant[part]), ""):
                return file
        return next(iter(get_close_matches(name, self.all, n=1, cutoff=0.7)), "")

    def misnamed(self, file: str) -> str:
        """Why a file cannot be used by its name; empty where it can: names in records and on pages are UTF-8."""
        return "name is not UTF-8; give the file, or the folder it is in, another" if file in self.not_utf8 else ""

    def passed_over(self, read: str = "") -> str:
        """A line on the files that are neither pictures nor `read`, counted by suffix; empty where there are none."""
        pictures = {*self.pictures, read}
        kinds = Counter(_suffix(each) or "no suffix" for each in self.all if each not in pictures)
        counted = ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items()))
        table = "; an index is read by the name index.csv alone" if not read and TABLES & kinds.keys() else ""
        linked = f"linked folders not followed: {', '.join(self.links)}" if self.links else ""
        passed = f"passed over, as no pictures: {counted}{table}" if counted else ""
        return "; ".join(filter(None, (passed, linked)))


def files_of(root: Path) -> Files:
    """All files of a folder.

    Raises:
        InputError: a folder in it cannot be read.
    """
    found: list[str] = []
    links: list[str] = []
    tops = [each for each in root.iterdir() if not _is_system(each.name)]
    for top in tops:
        if not top.is_dir():
            found.append(top.name)
            continue
        for folder, below, names in os.walk(top, onerror=_refuse):
            here = Path(folder).relative_to(root)
            below[:] = [each for each in below if not _is_system(each)]
            links += [(here / each).as_posix() for each in below if (root / here / each).is_symlink()]
            found += [(here / each).as_posix() for each in names if not _is_system(each)]
    garbled = frozenset(shown(each) for each in found if shown(each) != each)
    return Files(root, tuple(sorted(map(shown, found))), tuple(sorted(map(shown, links))), garbled)


def unread(file: str) -> str:
    """Why a file that looks like a picture is not read; empty where the decoder is to say."""
    suffix = _suffix(file)
    if suffix in _kinds()["unread"] and not is_read(file):
        return f"{suffix} is not read; export it as TIFF, PNG or JPEG (read are {', '.join(SUFFIXES)})"
    return ""


def is_read(file: str) -> bool:
    """Whether the decoder reads what a file is by its name."""
    return _suffix(file) in SUFFIXES


def composed(name: str) -> str:
    """A name with its accents as one letter each (NFC)."""
    return unicodedata.normalize("NFC", name)


def _parts(file: str) -> tuple[str, str, str]:
    """What two names may have in common but for the case: all; the name without the folder; that without its suffix."""
    place = PurePosixPath(composed(file).casefold())
    return str(place), place.name, place.stem


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _is_system(name: str) -> bool:
    return name.startswith((".", "~$")) or name.casefold() in _kinds()["system"]


def _refuse(fault: OSError) -> None:
    raise InputError(f"{fault.filename}: folder cannot be read: {fault.strerror}")
