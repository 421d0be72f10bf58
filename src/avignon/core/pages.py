"""Pages that open from disk: the one place where templates are filled in."""

import base64
import functools
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from avignon.core import imaging


def rendered(package: str, template: str, **fields: object) -> str:
    """A page as HTML; whatever comes from tables and prompts is escaped by the template engine.

    Args:
        package: the one whose `templates` folder has the template, and the style sheets and scripts it inlines.
        template: its file name.
        fields: what the template receives.
    """
    return _environment(package).get_template(template).render(fields) + "\n"


@functools.cache
def _environment(package: str) -> Environment:
    loader = PackageLoader(package)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["source"] = lambda name: Markup(loader.get_source(environment, name)[0])
    environment.filters["inlined"] = imaging.data_uri
    environment.filters["fingerprint"] = script_fingerprint
    return environment


def script_fingerprint(script: str) -> str:
    """A script as the content security policy names it (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
