"""Wheels in miniature: zip files with members of any name and kind, and folders of models in them."""

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

LICENCE = "tiny-1.0.dist-info/LICENSE"


def wheel(path: Path, members: Mapping[str, bytes], *, links: tuple[str, ...] = ()) -> Path:
    """A wheel with these members; those in `links` are marked as symbolic links."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**members, LICENCE: b"free"}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = ((stat.S_IFLNK if name in links else stat.S_IFREG) | 0o644) << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return path


def of_folder(folder: Path, inside: str) -> dict[str, bytes]:
    """The files of a folder as members below the folder `inside`."""
    files = (each for each in folder.rglob("*") if each.is_file())
    return {f"{inside}/{each.relative_to(folder).as_posix()}": each.read_bytes() for each in files}
