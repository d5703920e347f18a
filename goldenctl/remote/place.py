"""Which store is meant, and how its URL is shown: without anything secret."""

from __future__ import annotations

import os
import re
from pathlib import Path

from goldenctl.errors import DamagedError, UsageError
from goldenctl.model.tomlfile import read_toml

ENVIRONMENT = "GOLDENCTL_STORE"
CONFIG = "goldenctl.toml"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::.*)?://|[A-Za-z][A-Za-z0-9+-]*::")
_SECRET_NAMES = re.compile(
    r"SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY|ACCOUNT_KEY|CONNECTION_STR"
)
_SECRET_BYTES = 8
_MOST_SHOWN = 300
_CHAINED = re.compile(r"[^@:]*::[A-Za-z][A-Za-z0-9+.-]*")
_NAMED_SECRET = re.compile(
    r"(?i)([\w-]*(?:secret|token|passw|pwd|credential|signature|sig|key)[\w-]*=)\S+"
)


def find_store(option: str | None, goldens: Path) -> str:
    """Return the URL or folder of the store: the option, $GOLDENCTL_STORE, or what
    ``goldenctl.toml`` in the folder of golden sets says.

    Raises UsageError when none of them names one.
    """
    named = option or os.environ.get(ENVIRONMENT) or _configured(goldens / CONFIG)
    if not named:
        message = f"no store is named: neither --store nor ${ENVIRONMENT} nor {goldens / CONFIG}"
        hint = f'such as --store s3://bucket/goldens, or store = "s3://..." in {CONFIG}'
        raise UsageError(message, hint=hint)
    return named


def is_url(store: str) -> bool:
    """Tell whether a store is a URL, not a folder."""
    return _SCHEME.match(store) is not None


def shown(store: str) -> str:
    """Return a URL, or a text with URLs, without user, password, query and fragment.

    A password may hold what belongs into no password, such as a slash: where there are a user
    and a password, all up to the last ``@`` goes.
    """
    plain = re.sub(r"(?<=://)[^\s]+", lambda match: _without_secrets(match[0]), store)
    return _NAMED_SECRET.sub(r"\1***", plain)


def _without_secrets(rest: str) -> str:
    """Return what follows ``://`` without secrets."""
    before, chained, after = rest.partition("://")
    if chained and _CHAINED.fullmatch(before):  # such as zip://a.zip::s3://
        return f"{before}://{_without_secrets(after)}"
    user, at, behind = rest.rpartition("@")
    if re.search(r"[?#]", user):  # is it of a password, or a query's?
        return "***"
    if at and (":" in user or "@" in rest.partition("/")[0]):
        rest = f"***@{behind}"
    mark = re.search(r"[?#]", rest)
    return f"{rest[: mark.end()]}***" if mark else rest


def scrubbed(text: str) -> str:
    """Return the first line of another program's message with nothing secret in it."""
    lines = text.strip().splitlines() or [""]
    line = shown(lines[0])  # before it is cut: half a URL has a password without its end
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and len(value) >= _SECRET_BYTES:
            line = line.replace(value, "***")
    return line[:_MOST_SHOWN]


def _configured(path: Path) -> str | None:
    """Return the store that a config names; a folder is relative to the config's."""
    try:
        store = read_toml(path).get("store")
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise UsageError(message) from error
    except ValueError as error:
        message = f"{path}: not a TOML file: {error}"
        raise DamagedError(message) from error
    if store is not None and (not isinstance(store, str) or not store):
        message = f"{path}: store is not a URL or a folder"
        raise DamagedError(message, hint='expected store = "s3://bucket/goldens"')
    if store is None or is_url(store):
        return store
    return str(path.parent / store)
