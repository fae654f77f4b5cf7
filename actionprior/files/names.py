"""Names of files that are made from names in data, such as cameras and robots."""

import re

from actionprior.files.digest import digest

_PLAIN = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
_START = 40  # characters of a name that is no file name, before its digest


def file_name(name: str) -> str:
    """Return one part of a path for any text: the text itself, or else its start and a digest.

    Different texts give different names. None leaves the folder that it is put into.
    """
    if _PLAIN.fullmatch(name):
        return name
    start = re.sub(r"[^\w-]+", "_", name[:_START], flags=re.ASCII)
    # No plain name has a tilde, so the two kinds never collide.
    return f"{start}~{digest(name.encode('utf-8', 'surrogatepass'))[:12]}"
