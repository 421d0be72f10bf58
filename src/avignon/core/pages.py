"""Pages that open from disk: the one place where templates are filled in."""

import base64
import functools
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined

from avignon.core import imaging


def rendered(template: str, **fields: object) -> str:
    """A page as HTML. Whatever comes from tables and prompts is escaped by the template engine."""
    return _environment().get_template(template).render(fields) + "\n"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("avignon.exhibition"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inlined"] = imaging.data_uri
    environment.filters["fingerprint"] = _script_fingerprint
    return environment


def _script_fingerprint(script: str) -> str:
    """A script as the content security policy names it (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
