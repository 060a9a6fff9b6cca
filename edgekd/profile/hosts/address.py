"""`ssh://user@host:port?python=...`: where a device is, in one word."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from edgekd.errors import TargetError

SCHEME = "ssh://"

# A name that begins with a dash would be an option of ssh.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+")
_FIX = "Write ssh://user@host or ssh://user@host:port."


@dataclass(frozen=True)
class Address:
    """`user` and `port` are ssh's own choice where None.

    Options after a question mark: `python`, the interpreter there; `cache`, the directory that stays there; `config`, a
    configuration file of ssh's here; `set_power_mode`, a name of `nvpmodel`'s; `lock_clocks`, for jetson_clocks;
    `simulated`, a directory there that stands for the root of a board.
    """

    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"
    cache: str = ""
    config: str | None = None
    set_power_mode: str | None = None
    lock_clocks: bool = False
    simulated: str = ""

    def __str__(self) -> str:
        """Without its options: what names the machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

    def url(self) -> str:
        """The whole of it; `parse` gives the same address back."""
        chosen = [(name, getattr(self, name)) for name in _OPTIONS if getattr(self, name) != getattr(_PLAIN, name)]
        words = [(name, "yes" if value is True else value) for name, value in chosen]
        return f"{self}?{urlencode(words, quote_via=quote, safe='/')}" if words else str(self)


_PLAIN = Address("host")
_OPTIONS = [field.name for field in fields(Address) if field.name not in ("host", "user", "port")]


def parse(url: str) -> Address:
    """Raises TargetError, naming the part that is wrong."""

    def wrong(what: str, fix: str = _FIX) -> TargetError:
        return TargetError(f"target {url}: {what}", fix)

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise wrong(str(error)) from None
    user, _, host = parts.netloc.rpartition("@")
    host = re.sub(r":\d*$", "", host)
    if ":" in user:
        raise wrong("a password has no place in it", "Use a key; `ssh-copy-id` brings it to the device.")
    if user and not _NAME.fullmatch(user):
        raise wrong(f"{user!r} is no user's name")
    bracketed = re.fullmatch(r"\[(.*)\]", host)
    if bracketed and _IPV6.fullmatch(bracketed[1]):
        host = bracketed[1]
    elif not _NAME.fullmatch(host):
        raise wrong(f"{host!r} is no host's name" + ("; one cannot begin with a dash" if host[:1] == "-" else ""))
    if parts.path not in ("", "/") or parts.fragment:
        raise wrong(f"{parts.path or parts.fragment!r} means nothing there")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in options.items():
        if name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, n=1)
            raise wrong(
                f"unknown option {name!r}", f"Did you mean {near[0]}?" if near else f"Of {', '.join(_OPTIONS)}."
            )
        if not value or value.startswith("-") or "\n" in value or "\0" in value:
            raise wrong(f"{name}={value!r} is no value for it", "Leave it out, or name one.")
    lock = options.pop("lock_clocks", "no")
    if lock not in ("yes", "no"):
        raise wrong(f"lock_clocks={lock!r}", "Write yes or no.")
    return Address(host, unquote(user) or None, port, lock_clocks=lock == "yes", **options)
