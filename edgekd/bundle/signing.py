"""ed25519 signatures (RFC 8032) of a bundle's manifest, through the package `cryptography`."""

from __future__ import annotations

import base64
from pathlib import Path

from edgekd.errors import ConfigError


def sign(content: bytes, key: Path) -> bytes:
    """The signature of `content` in base64, by the private key in the PEM file `key`. Raises ConfigError."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise ConfigError("--sign needs the package cryptography", "Run pip install 'edgekd[sign]'.") from None
    fix = "Make one: openssl genpkey -algorithm ed25519 -out key.pem"
    try:
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"--sign {key}: not a private key without a password: {error}", fix) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"--sign {key}: not an ed25519 key", fix)
    return base64.b64encode(private.sign(content)) + b"\n"
