"""A bundle's manifest, from its directory or zip file. Nothing is verified: `edgekd verify` does that."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from edgekd.describe import MANIFEST
from edgekd.errors import BundleError

SHOWN = ("target", "requires", "default", "models", "provenance", "versions")


def describe_bundle(path: Path) -> dict[str, Any]:
    """Target, models and versions as the manifest has them. Raises BundleError."""
    fix = "Name a bundle that `edgekd export --bundle` wrote."
    try:
        if path.is_dir():
            content = (path / MANIFEST).read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                content = archive.read(MANIFEST)
        manifest = json.loads(content)
        listed = {key: manifest[key] for key in SHOWN}
        size = sum(file["bytes"] for file in manifest["files"].values())
    except KeyError as error:
        raise BundleError(f"{path} is no bundle: {error.args[0]}", fix) from None
    except (ValueError, TypeError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: {MANIFEST} cannot be read: {error}", fix) from None
    return {"kind": "bundle", "path": str(path), "bytes": size, "files": len(manifest["files"]), **listed}
