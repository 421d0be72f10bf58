"""PNG files that say what they are: parameters, rights, and that a trained model made them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from avignon.core.files import json_text, json_value
from avignon.core.formats import BROKEN, identified

TRAINED = "Made by a trained model, not by a painter (IPTC digital source type: trainedAlgorithmicMedia)."
"""What `_XMP_TRAINED` says, for people, where a format has room for words only."""

_XMP_TRAINED = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
"""IPTC Photo Metadata: made by a trained model (https://cv.iptc.org/newscodes/digitalsourcetype/)."""


def xmp_trained(title: str, description: str, rights: str) -> str:
    """`_XMP_TRAINED` with words in Dublin Core, whose texts are in alternatives by language (ISO 16684-1, 8.3)."""
    texts = {"title": title, "description": description, "rights": rights}
    core = "".join(
        f'<dc:{name}><rdf:Alt><rdf:li xml:lang="x-default">{escape(text)}</rdf:li></rdf:Alt></dc:{name}>'
        for name, text in texts.items()
        if text
    )
    opened = 'xmlns:dc="http://purl.org/dc/elements/1.1/">' + core + "</rdf:Description>"
    return _XMP_TRAINED.replace('trainedAlgorithmicMedia"/>', f'trainedAlgorithmicMedia" {opened}')


def png_bytes(
    image: Image.Image, parameters: str = "", fields: Mapping[str, Any] | None = None, rights: str = ""
) -> bytes:
    """A PNG; with `fields`, one that carries its own parameters and says that a trained model made it.

    `parameters` is the text that common image tools show; `fields` is the same for programs, as JSON under `avignon`.
    `rights` says what its makers' training images allow (PNG's own keyword `Copyright`, which image tools show).
    """
    info = PngInfo()
    if fields is not None:
        info.add_itxt("parameters", parameters)
        info.add_itxt("avignon", json_text(fields, sort_keys=True))
        info.add_itxt("XML:com.adobe.xmp", _XMP_TRAINED)
        if rights:
            info.add_itxt("Copyright", rights)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, optimize=False)
    return buffer.getvalue()


_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG (https://www.w3.org/TR/png-3/#11IEND)."""


def png_fields(path: Path) -> Any:
    """The JSON that `png_bytes` wrote; None where there is none or the file is damaged."""
    try:
        content = path.read_bytes()
        if not content.endswith(_PNG_END):  # The pixels may be all there in a file that was cut off.
            return None
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.load()
            return json_value(str(getattr(image, "text", {}).get("avignon", "null")))
    except BROKEN:
        return None


def with_rights(path: Path, rights: str) -> bytes:
    """A PNG that `png_bytes` wrote, with the same pixels and words, that says something else of its rights."""
    with identified(path) as (image, _):
        image.load()
        told = getattr(image, "text", {})
        return png_bytes(image, str(told.get("parameters", "")), json_value(str(told["avignon"])), rights)


def png_rights(path: Path) -> str:
    """The rights that `png_bytes` wrote; empty where all is open."""
    with identified(path) as (image, _):
        image.load()  # Texts may stand behind the pixels.
        return str(getattr(image, "text", {}).get("Copyright", ""))
