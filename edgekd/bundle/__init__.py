"""A folder that a device can build, verify and run without edgekd.

`device/` holds the programs that travel in it, in Python 3.6, POSIX shell and C++; `edgekd verify` runs the same ones.
"""

from __future__ import annotations

from edgekd.bundle.verifying import verify_bundle
from edgekd.bundle.writing import write_bundle

__all__ = ["verify_bundle", "write_bundle"]
