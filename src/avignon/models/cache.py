"""The hub's cache on this machine: whether what arrived in it is what the hub said it would be; without torch."""

import re
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from avignon.core.errors import ModelError
from avignon.core.files import sha256_of

SHA256 = "[0-9a-f]{64}"


def blobs(model: str) -> set[Path]:
    """A repository's large files in the cache, each named by its SHA-256."""
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=model, repo_type="model"), "blobs")
    return {blob for blob in folder.glob("*") if re.fullmatch(SHA256, blob.name)}


def check_arrived(arrived: Collection[Path], message: str) -> None:
    """Delete a file that is not what its name says: the hub's client compares sizes alone.

    Raises:
        ModelError: the message, with the name of the file in place of its braces.
    """
    for blob in arrived:
        if sha256_of(blob) != blob.name:
            named = [path for path in blob.parents[1].glob("snapshots/**/*") if path.resolve() == blob.resolve()]
            for path in (*named, blob):
                path.unlink()
            name = named[0].name if named else blob.name
            raise ModelError(f"{message.format(name)}: its SHA-256 is another; it is deleted, run again to fetch it")
