"""The catalog at full size: how long it takes to build, in how much memory, and how fast an artist's works are listed.

Tables of 145,000 objects and 120,000 images are made up with the quirks of real exports; where real tables lie beside
the checkout (`../shared/nga`), those are used for people, roles, terms and dimensions. All is measured in one run:

- `build`: a process that builds the catalog from the CSV files; its wall-clock time and peak memory.
- `works`: the whole command `avignon works "Homer, Winslow" --open-only`, process start included.
- `pandas`: a process that does the same with pandas, straightforwardly: read the tables' columns, join, filter, print.
- `pandas, pickled`: the same from frames that were pickled before, for a fairer race.

    python -m pip install pandas
    python benchmarks/catalog.py [--rounds 7] [--share 1.0]
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from avignon.museums.nga import OWN_HAND

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "nga"
TABLES = "https://museum.test/data"

BUILD = """
import resource, sys, time
from pathlib import Path
from avignon.museums import catalog
class Files:
    def table(self, url, known_as=""):
        return Path(sys.argv[1]) / url.rpartition("/")[2], True
start = time.perf_counter()
about = catalog.update(sys.argv[2], Files()).about
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, sum(about.rows.values()))
"""

PANDAS = """
import sys
from pathlib import Path
import pandas
folder, pickled = Path(sys.argv[1]), sys.argv[2] == "pickled"
def read(table, *columns):
    if pickled:
        return pandas.read_pickle(folder / f"{table}.pickle")
    return pandas.read_csv(folder / f"{table}.csv", usecols=columns, dtype=str, keep_default_na=False)
people = read("constituents", "constituentid", "preferreddisplayname", "endyear")
parts = read("objects_constituents", "objectid", "constituentid", "roletype", "role", "prefix")
objects = read("objects", "objectid", "accessionnum", "title", "displaydate", "medium", "classification", "creditline")
images = read("published_images", "iiifurl", "viewtype", "sequence", "width", "height", "maxpixels", "openaccess",
              "depictstmsobjectid")
terms = read("objects_terms", "objectid", "termtype", "term")
if sys.argv[2] == "write":
    for name in ("people", "parts", "objects", "images", "terms"):
        table = {"people": "constituents", "parts": "objects_constituents", "images": "published_images",
                 "terms": "objects_terms"}.get(name, name)
        globals()[name].to_pickle(folder / f"{table}.pickle")
    sys.exit()
homer = people[people.preferreddisplayname == "Homer, Winslow"]
own = parts[parts.constituentid.isin(homer.constituentid) & (parts.roletype == "artist")
            & parts.role.isin(sys.argv[3].split(","))
            & parts.prefix.isin(["", "and", ",", "with"])].drop_duplicates("objectid")
works = objects.merge(own, on="objectid")
shown = images[(images.viewtype == "primary") & (images.openaccess == "1")]
works = works.merge(shown, left_on="objectid", right_on="depictstmsobjectid")
words = terms[terms.objectid.isin(works.objectid)].groupby("objectid").term.agg("; ".join)
works = works.merge(words, left_on="objectid", right_index=True, how="left")
print(works[["objectid", "title", "displaydate", "medium", "classification", "width", "height"]].to_string())
"""


def main() -> None:
    """Print one table of times, and the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--share", type=float, default=1.0, help="of the full number of rows")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from tests.support import fullsize

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real = REAL if REAL.is_dir() and arguments.share == 1 else None
        fullsize.make(folder / "data", share=arguments.share, real=real)
        size = sum(path.stat().st_size for path in (folder / "data").iterdir())
        print(
            f"tables: {size / 1e6:.0f} MB of CSV, {'partly real' if real else 'made up'}; load {os.getloadavg()[0]:.1f}"
        )
        _measure(folder, arguments.rounds)


def _measure(folder: Path, rounds: int) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    # As for any user, modules are compiled once: the first, uncounted round leaves their bytecode.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    works = ["-m", "avignon", "works", "Homer, Winslow", "--open-only", "--tables", TABLES]
    data = str(folder / "data")
    built = []
    for _ in range(rounds):
        for old in (folder / "cache").glob("avignon/*"):
            old.unlink()
        seconds, memory, rows = map(float, _output(["-c", BUILD, data, TABLES], environment).split())
        built.append((seconds, memory))
    seconds, memory = statistics.median(s for s, _ in built), max(m for _, m in built)
    print(f"build: {seconds:.1f} s, peak {memory:.0f} MiB, {rows:,.0f} rows")
    _output(["-c", PANDAS, data, "write"], environment)
    roles = ",".join(OWN_HAND)
    contestants = {
        "works": works,
        "pandas": ["-c", PANDAS, data, "csv", roles],
        "pandas, pickled": ["-c", PANDAS, data, "pickled", roles],
        "python alone": ["-c", "pass"],
    }
    times: dict[str, list[tuple[float, float]]] = {contestant: [] for contestant in contestants}
    for _ in range(rounds + 1):
        for contestant, command in contestants.items():
            start, used = time.perf_counter(), _processor_seconds()
            _output(command, environment)
            times[contestant].append((time.perf_counter() - start, _processor_seconds() - used))
    # The first round warms up. Processor time tells a busy machine's waiting from the command's own work.
    medians = {
        who: [statistics.median(column) for column in zip(*each[1:], strict=True)] for who, each in times.items()
    }
    for who, (wall, processor) in medians.items():
        ratios = f"{wall / medians['works'][0]:5.1f} × {processor / medians['works'][1]:5.1f} ×"
        print(f"{who:>16} {wall * 1000:8.0f} ms, {processor * 1000:6.0f} ms of processor; as against works {ratios}")
    print(f"rows listed: works {_rows(works, environment)}, pandas {_rows(contestants['pandas'], environment)}")


def _processor_seconds() -> float:
    """What all children have used so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _rows(command: list[str], environment: dict[str, str]) -> int:
    """Lines of output that begin with an object's id: both ways must list the same works."""
    more = ["--csv"] if "avignon" in command else []
    text = _output([*command, *more], environment)
    return sum(1 for line in text.splitlines() if line.split(",")[0].strip().split(" ")[0].isdecimal())


def _output(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[:4]}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
