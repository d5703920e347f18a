"""The pinned source package, from where pip looks for packages, without pip.

pip builds a source package's metadata before it hands it over, for which it runs the package's
own code and fetches what that needs. The places and certificates are those of pip's settings;
the caller checks the digest.
"""

from __future__ import annotations

import ast
import base64
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

DEFAULT_INDEX = "https://pypi.org/simple"
LIMIT_BYTES = 64 << 20
_PAGE_LIMIT_BYTES = 4 << 20
_TIMEOUT_S = 60.0


def find_sdist(project: str, file_name: str, target: Path) -> str:
    """Write the file of a project to ``target`` from the first place that has it.

    Returns nothing, or why no place has it, in one line.
    """
    settings = _settings()
    problems: list[str] = []
    for place, listed in _places(settings, project):
        try:
            url = _link(place, file_name, settings) if listed else urljoin(place, file_name)
            if url is not None:
                target.write_bytes(_read(url, LIMIT_BYTES, settings))
                return ""
            problems.append(f"{urlsplit(place).hostname or place} has no {file_name}")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            problems.append(f"{urlsplit(place).hostname or place}: {reason}")
    return "; ".join(problems)


def _settings() -> dict[str, str]:
    """Return pip's settings by name: of the environment, else of its files."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for line in ran.stdout.splitlines():
        name, given, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if given and section in ("global", "download", ":env:"):
            found[key] = str(ast.literal_eval(value))  # the environment's come last
    return found


def _places(settings: dict[str, str], project: str) -> Iterator[tuple[str, bool]]:
    """Yield folders to look into, each with whether it is a page of links."""
    for folder in settings.get("find-links", "").split():
        if Path(folder).is_dir():
            yield f"{Path(folder).absolute().as_uri()}/", False
    indexes = [
        settings.get("index-url", DEFAULT_INDEX),
        *settings.get("extra-index-url", "").split(),
    ]
    for index in indexes if "no-index" not in settings else ():
        yield f"{index.rstrip('/')}/{project}/", True


def _link(page: str, file_name: str, settings: dict[str, str]) -> str | None:
    """Return the link to a file on a page of an index."""
    local = page.startswith("file:")
    text = _read(urljoin(page, "index.html") if local else page, _PAGE_LIMIT_BYTES, settings)
    parser = _Links()
    parser.feed(text.decode("utf-8", "replace"))
    urls = (urldefrag(urljoin(page, link)).url for link in parser.links)
    return next((u for u in urls if unquote(urlsplit(u).path).endswith(f"/{file_name}")), None)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _read(url: str, limit_bytes: int, settings: dict[str, str]) -> bytes:
    """Return what is at a URL; OSError or ValueError, also for more than the limit."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http", "file"):
        message = f"{parts.scheme}: is not read"
        raise ValueError(message)
    request = urllib.request.Request(url)
    if parts.username:
        host = parts.netloc.rpartition("@")[2]
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request = urllib.request.Request(parts._replace(netloc=host).geturl())
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    context = ssl.create_default_context(cafile=settings.get("cert"))
    answer: IO[bytes]
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context) as answer:
        data = answer.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        message = f"more than {limit_bytes} bytes came"
        raise ValueError(message)
    return data
