"""Pages that open from disk: templates filled in, pictures inlined."""

import base64
import functools
import hashlib
import io

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image


def rendered(package: str, template: str, **fields: object) -> str:
    """A page as HTML, whose fields are escaped, from a template in the `templates` folder of a package.

    Style sheets and scripts that it inlines with `source` stand in the same folder.
    """
    return _environment(package).get_template(template).render(fields) + "\n"


@functools.cache
def _environment(package: str) -> Environment:
    loader = PackageLoader(package)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["source"] = lambda name: Markup(loader.get_source(environment, name)[0])
    environment.filters["inlined"] = data_uri
    environment.filters["fingerprint"] = script_fingerprint
    return environment


def script_fingerprint(script: str) -> str:
    """A script as the content security policy names it (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def data_uri(webp: bytes) -> str:
    """A WebP as an address inside a page."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def webp_bytes(image: Image.Image, longest: int, quality: int = 88) -> bytes:
    """A WebP no larger than `longest` pixels on its long side, for the page."""
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=6)
    return buffer.getvalue()
