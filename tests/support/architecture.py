"""What a tree of Python says about its own structure, read from syntax trees: nothing is imported or run.

Each check takes a folder and returns its faults, a line each; none means that the tree passes.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

FOREIGN = {"diffusers", "transformers"}
FOREIGN_WORDS = re.compile("unet|vae|text_?encoder", re.IGNORECASE)

RECIPE_WORDS = {"vae", "vae_mirrors", "vae_revision"}
"""Keys of a recipe are their users' words: two modules hold them as fields."""

RECIPE_FIELDS = ("recipe.schema", "generation.standalone")


@dataclass(frozen=True)
class Source:
    """One module: its dotted name, counted from the folder above the tree, and its file."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        """The file's text."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the syntax tree."""
        return list(ast.walk(ast.parse(self.text)))

    @property
    def package(self) -> str:
        """The package that the module belongs to; a package's `__init__` belongs to the package itself."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    @cached_property
    def lines(self) -> int:
        """Lines of the file, as `wc -l` counts them."""
        return self.text.count("\n")

    @cached_property
    def imports(self) -> list[str]:
        """Every imported name in full, such as `avignon.core.files.digest`.

        Imports inside functions and under TYPE_CHECKING count, and so do strings such as "avignon.stages.", by which
        modules are imported lazily.
        """
        return [name for node in self.nodes for name in self._imported(node)]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """By the name that it has here, the full name of what is imported."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.ImportFrom):
                found |= {each.asname or each.name: f"{self._from(node)}.{each.name}" for each in node.names}
            elif isinstance(node, ast.Import):
                found |= {each.asname or each.name.split(".")[0]: each.name for each in node.names if each.asname}
                found |= {each.name.split(".")[0]: each.name.split(".")[0] for each in node.names if not each.asname}
        return found

    def _imported(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.ImportFrom):
            yield from (f"{self._from(node)}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"avignon\.[\w.]+", str(node.value)):
            yield str(node.value).rstrip(".")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(each.value) for each in node.args if isinstance(each, ast.Constant))

    def _from(self, node: ast.ImportFrom) -> str:
        """The full name of the module that an import names, be it relative."""
        above = self.package.split(".")[: -(node.level - 1) or None] if node.level else []
        return ".".join([*above, *([node.module] if node.module else [])])


@cache
def sources(folder: Path) -> list[Source]:
    """All modules of a tree."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        found.append(Source(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


# Size -----------------------------------------------------------------------------------------------------------------


def long_modules(package: Path, most: int = 400, spared: tuple[str, ...] = ("demo/", "recipe/schema.py")) -> list[str]:
    """Modules with more lines than `most`, but for the spared ones."""
    places = {each.path.relative_to(package).as_posix(): each.lines for each in sources(package)}
    return [
        f"{place}: {lines} lines" for place, lines in places.items() if lines > most and not place.startswith(spared)
    ]


def long_functions(package: Path, most: int = 60) -> list[str]:
    """Functions with more lines than `most`, from `def` to the last line of the body."""
    return [
        f"{each.name}.{node.name}: {lines} lines"
        for each in sources(package)
        for node in each.nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > most
    ]


def too_many_lines(package: Path, most: int = 23_100) -> list[str]:
    """The lines of all modules outside `demo/`, where they are more than `most`: what adds to the program raises it.

    1,300 of them came with other programs' adapters (three formats that are read and written, LyCORIS, sources), 1,100
    with adapters for other programs (headers, previews, merged and published ones), 940 with `avignon sample` and
    `avignon evaluate ADAPTER`, 740 with SDXL, bases in single files, and short names, 60 with kohya's names of SDXL,
    640 with Z-Image and what flow matching needs, 200 with checks of what strangers' files say (numbers,
    configurations, cards), 740 with FLUX.2 klein and other programs' names for transformers, 1,010 with memory that is
    told before it is spent, 460 with frozen layers in 8 or 4 bits or in RAM, 440 with buckets and scenes of any shape,
    380 with other VAEs and what arrives damaged from a hub.
    """
    lines = sum(each.lines for each in sources(package) if each.path.parent.name != "demo")
    return [f"{lines} lines outside demo/, {lines - most} too many"] if lines > most else []


# Units: the packages and modules directly under the package -----------------------------------------------------------


def units(package: Path) -> list[str]:
    """Packages and modules directly under a package, by name."""
    names = {name for each in sources(package) for name in each.name.split(".")[1:2]}
    return sorted(names)


def dependencies(package: Path) -> dict[str, set[str]]:
    """By unit, the other units that any of its modules imports, wherever in the module."""
    found: dict[str, set[str]] = {name: set() for name in units(package)}
    for each in sources(package):
        for unit in each.name.split(".")[1:2]:
            used = {name.split(".")[1] for name in each.imports if name.startswith(f"{package.name}.")}
            found[unit] |= used & found.keys() - {unit}
    return found


def chain(graph: Mapping[str, set[str]]) -> list[str]:
    """The longest chain of units of which each imports the next.

    Raises:
        RecursionError: naming a cycle, if there is one.
    """
    longest: dict[str, list[str]] = {}

    def below(unit: str, above: tuple[str, ...]) -> list[str]:
        if unit in above:
            raise RecursionError(" → ".join([*above[above.index(unit) :], unit]))
        if unit not in longest:
            longest[unit] = [unit, *max((below(each, (*above, unit)) for each in graph[unit]), key=len, default=[])]
        return longest[unit]

    return max((below(unit, ()) for unit in graph), key=len, default=[])


def too_many_units(package: Path, most: int = 20) -> list[str]:
    """The units, where they are more than `most`."""
    found = units(package)
    return [f"{len(found)} packages and modules: {', '.join(found)}"] if len(found) > most else []


def too_deep(package: Path, most: int = 11) -> list[str]:
    """A chain of more units than `most`, or a cycle."""
    try:
        found = chain(dependencies(package))
    except RecursionError as cycle:
        return [f"a cycle: {cycle}"]
    return [f"{len(found)} deep: {' → '.join(found)}"] if len(found) > most else []


def too_many_dependencies(package: Path, most: int = 90) -> list[str]:
    """The number of pairs of units of which one imports the other, where it is more than `most`."""
    pairs = sum(map(len, dependencies(package).values()))
    return [f"{pairs} dependencies"] if pairs > most else []


# Borders --------------------------------------------------------------------------------------------------------------


def foreign_imports(package: Path) -> list[str]:
    """Imports of diffusers or transformers outside `models/` and `adapters/formats/`."""
    return [
        f"{each.name} imports {name}"
        for each in _at_home(package)
        for name in each.imports
        if name.split(".")[0] in FOREIGN
    ]


def foreign_words(package: Path) -> list[str]:
    """Identifiers outside `models/` and `adapters/formats/` that name a part of Stable Diffusion."""
    return sorted(
        {
            f"{each.name} says {name}"
            for each in _at_home(package)
            for name in (each.name, *(name for node in each.nodes for name in _identifiers(node)))
            if FOREIGN_WORDS.search(name) and not (name in RECIPE_WORDS and each.name.endswith(RECIPE_FIELDS))
        }
    )


def _at_home(package: Path) -> list[Source]:
    own = tuple(f"{package.name}.{place}." for place in ("models", "adapters.formats"))
    return [each for each in sources(package) if not f"{each.name}.".startswith(own)]


def _identifiers(node: ast.AST) -> Iterator[str]:
    """The names that a node itself holds: everything but the text of constants."""
    for key, value in ast.iter_fields(node):
        if isinstance(value, str) and key in ("id", "attr", "arg", "name", "asname", "module", "rest"):
            yield value
        elif isinstance(node, ast.Global | ast.Nonlocal | ast.MatchClass) and isinstance(value, list):
            yield from (each for each in value if isinstance(each, str))


def imports_between_stages(package: Path) -> list[str]:
    """Stages that import another stage."""
    prefix = f"{package.name}.stages."
    stages = [each for each in sources(package) if each.name.startswith(prefix)]
    names = {each.name.removeprefix(prefix).split(".")[0] for each in stages}
    return [
        f"{each.name} imports {name}"
        for each in stages
        for name in each.imports
        if name.startswith(prefix)
        and (other := name.removeprefix(prefix).split(".")[0]) in names
        and not f"{each.name}.".startswith(f"{prefix}{other}.")
    ]


def private_uses(package: Path, users: Path | None = None) -> list[str]:
    """Private names (`_x`) that are imported or used from outside the package of the module that defines them.

    `users` is another tree that uses the package, such as its tests. An attribute `thing._x` of which the type is not
    known counts where no module of the user's own package defines `_x` but another one does.
    """
    own = sources(package)
    modules = {each.name: each for each in own}
    owners: dict[str, set[str]] = {}
    for each in own:
        for name in {name for node in each.nodes for name in _defined(node)}:
            owners.setdefault(name, set()).add(each.package)

    def outside(each: Source, name: str) -> bool:
        """Whether a full name has a private part that does not belong to the module's package."""
        parts = name.split(".")
        place = next((i for i, part in enumerate(parts) if _is_private(part)), 0)
        if not place or parts[0] != package.name:
            return False
        owner = ".".join(parts[:place])
        home = modules[owner].package if owner in modules else owner.rpartition(".")[0]
        return not f"{each.package}.".startswith(f"{home}.")

    found = []
    for each in own if users is None else sources(users):
        found += [f"{each.name} imports {name}" for name in each.imports if outside(each, name)]
        for node in each.nodes:
            if not (isinstance(node, ast.Attribute) and _is_private(node.attr)):
                continue
            base = ast.unparse(node.value)
            name = each.aliases.get(base.split(".")[0], "")
            if name:
                full = ".".join([name, *base.split(".")[1:], node.attr])
                is_fault = outside(each, full)
            else:
                homes = owners.get(node.attr, set())
                is_fault = base not in ("self", "cls") and bool(homes) and each.package not in homes
            found += [f"{each.name} uses {base}.{node.attr}"] if is_fault else []
    return sorted(set(found))


def _is_private(name: str) -> bool:
    return name.startswith("_") and name.strip("_") != "" and not name.endswith("__")


def _defined(node: ast.AST) -> Iterator[str]:
    """Private names that a node defines: functions, classes, variables, and attributes of `self`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and _is_private(node.name):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and _is_private(node.id):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_private(node.attr):
        yield node.attr


# Tests ----------------------------------------------------------------------------------------------------------------


def imports_between_tests(tests: Path) -> list[str]:
    """Tests that import anything of the tests but what is in `support`."""
    return [
        f"{each.name} imports {name}"
        for each in sources(tests)
        for name in each.imports
        if name.startswith(f"{tests.name}.") and name.split(".")[1] != "support"
    ]


def strange_folders(tests: Path, package: Path) -> list[str]:
    """Folders of tests that bear no package's name; `support` and `fixtures` hold what tests need."""
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    folders = {path.parent.name for path in tests.glob("*/*.py")}
    return sorted(folders - packages - {"support", "fixtures"})
