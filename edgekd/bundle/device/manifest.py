"""What a bundle must hold, and whether this one does: Python 3.6 and its standard library alone.

`MANIFEST.json` lists every file with its SHA-256. `MANIFEST.sha256` has the digest of that list, and of its signature
where there is one, as `sha256sum -c` reads it.
"""

import base64
import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from typing import Any, Dict, Iterator, List, Optional, Tuple

FORMAT = 1
MANIFEST, DIGESTS, SIGNATURE = "MANIFEST.json", "MANIFEST.sha256", "MANIFEST.json.sig"
OUTSIDE = (MANIFEST, DIGESTS, SIGNATURE)  # files that the list itself does not name
KEYS = ("files", "built", "models", "default", "target", "requires")
LARGEST = 16 << 20  # bytes of one of these
SHOWN = 6  # faults in one message
UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError)
AS_IT_WAS = "Fetch the bundle again, and change none of its files."

CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


class Refused(Exception):
    """The bundle cannot be used here: `what` names the file or device at fault, `fix` says what to do."""

    exit_code = 2

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}\n{fix}")
        self.what = what
        self.fix = fix


class Failed(Refused):
    """The bundle is whole, but does not compute here what it should, or nothing here can run it."""

    exit_code = 3


@contextlib.contextmanager
def opened(path: str) -> Iterator[str]:
    """The directory of a bundle, or of a zip file unpacked for as long as the block lasts. Raises Refused."""
    if os.path.isdir(path):
        yield path
    elif not os.path.isfile(path):
        raise Refused(f"{path} does not exist", "Name a bundle: its directory or its zip file.")
    elif not zipfile.is_zipfile(path):
        raise Refused(f"{path} is no zip file", "Name a bundle: its directory or its zip file.")
    else:
        with tempfile.TemporaryDirectory(prefix="bundle-") as root:
            unpack(path, root)
            yield root


def unpack(path: str, root: str) -> None:
    """Unpack the zip file into `root`. Nothing is written of one with a name, a kind or a size that is not listed."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
            names = [entry.filename for entry in entries]
            for entry in entries:
                require_plain(entry.filename, path)
                if entry.filename in OUTSIDE and entry.file_size > LARGEST:
                    raise Refused(f"{path}: {entry.filename} has {entry.file_size} bytes", AS_IT_WAS)
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG):
                    what = "a link" if kind == stat.S_IFLNK else "no plain file"
                    raise Refused(f"{path}: {entry.filename} is {what}", "A bundle holds plain files only.")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise Refused(f"{path}: {twice[0]} is in it twice", AS_IT_WAS)
            if MANIFEST not in names:
                raise Refused(f"{path} holds no {MANIFEST} at its top", "Name a bundle that edgekd wrote.")
            listed = read(archive.read(MANIFEST))["files"]
            for entry in entries:
                if entry.filename not in listed and entry.filename not in OUTSIDE:
                    raise Refused(f"{path}: {entry.filename} is not in its manifest", AS_IT_WAS)
                size = listed.get(entry.filename, {}).get("bytes", entry.file_size)
                if entry.file_size != size:
                    text = f"{path}: {entry.filename} has {entry.file_size} bytes, not {size}"
                    raise Refused(text, AS_IT_WAS)
            need, have = sum(entry.file_size for entry in entries), shutil.disk_usage(root).free
            if need > have:
                text = f"{path} takes {need} bytes unpacked, and {have} are free"
                raise Refused(text, "Free some space, or set TMPDIR.")
            for entry in entries:
                target = os.path.join(root, *entry.filename.split("/"))
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with archive.open(entry) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
    except UNREADABLE as error:
        raise Refused(f"{path} cannot be unpacked: {error}", AS_IT_WAS) from None


def require_plain(name: str, where: str) -> None:
    """Raises Refused for a name that would leave the bundle's directory, or means something else on other systems."""
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts) or re.search(r'[\x00-\x1f\\:*?"<>|]', name):
        raise Refused(f"{where}: the name {name!r} leaves the bundle", "Do not unpack it; ask who made it.")


def read(content: bytes) -> Dict[str, Any]:
    """The manifest of these bytes. Raises Refused."""
    try:
        manifest = json.loads(content.decode())
        files = manifest["files"]
        sound = all(key in manifest for key in KEYS) and all(
            re.match("[0-9a-f]{64}$", file["sha256"]) and file["bytes"] >= 0 for file in files.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise Refused(f"{MANIFEST} is no manifest of a bundle", AS_IT_WAS)
    if manifest.get("format") != FORMAT:
        text = "{} has format {}, and this program reads format {}".format(MANIFEST, manifest.get("format"), FORMAT)
        raise Refused(text, "Use the verify.py that lies in the bundle.")
    for name in [*files, *manifest["built"]]:
        require_plain(name, MANIFEST)
    return dict(manifest)


def load(root: str) -> Dict[str, Any]:
    """The manifest of a bundle's directory. Raises Refused."""
    try:
        with open(os.path.join(root, MANIFEST), "rb") as file:
            return read(file.read())
    except OSError:
        raise Refused(f"{root} holds no {MANIFEST}", "Name a bundle that edgekd wrote.") from None


def check(root: str, public: Optional[str] = None) -> Dict[str, Any]:
    """The manifest of a bundle that is whole: every file as listed, nothing missing, nothing more, no links.

    `public`, a PEM file, must hold the ed25519 key that signed it. Raises Refused, naming the files at fault.
    """
    _check_manifest(root)
    if public is not None:
        check_signature(root, public)
    manifest = load(root)
    faults = [f"{name} is missing" for name in manifest["files"] if not _there(root, name)]
    for name, kind in _entries(root):
        listed = manifest["files"].get(name)
        if kind != "file":
            faults.append(f"{name} is {kind}")
        elif listed is None:
            if name not in OUTSIDE and name not in manifest["built"]:
                faults.append(f"{name} is not in the manifest")
        elif os.path.getsize(os.path.join(root, name)) != listed["bytes"] or digest(root, name) != listed["sha256"]:
            faults.append(f"{name} is not the file that the manifest lists")
    if faults:
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise Refused("; ".join(sorted(faults)[:SHOWN]) + more, AS_IT_WAS)
    return manifest


def _check_manifest(root: str) -> None:
    if not _there(root, MANIFEST):
        raise Refused(f"{root} holds no {MANIFEST}", "Name a bundle that edgekd wrote.")
    expected = [MANIFEST] + ([SIGNATURE] if signed(root) else [])
    if not _there(root, DIGESTS):
        raise Refused(f"{DIGESTS} is missing", AS_IT_WAS)
    with open(os.path.join(root, DIGESTS), "rb") as file:
        found = file.read()
    for name in expected:
        if f"{digest(root, name)}  {name}".encode() not in found.split(b"\n"):
            raise Refused(f"{name} does not have the digest in {DIGESTS}: one of them was changed", AS_IT_WAS)
    if found != digests(root, expected):
        raise Refused(f"{DIGESTS} was changed", AS_IT_WAS)


def digests(root: str, names: List[str]) -> bytes:
    """The content of `MANIFEST.sha256`."""
    return "".join(f"{digest(root, name)}  {name}\n" for name in names).encode()


def check_signature(root: str, public: str) -> None:
    """Raises Refused unless the manifest has a signature of the ed25519 key in the PEM file `public`."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise Failed("a signature needs the Python package cryptography", "Run pip install cryptography.") from None
    try:
        with open(public, "rb") as file:
            key = load_pem_public_key(file.read())
    except (OSError, ValueError) as error:
        fix = "Name the PEM file that `openssl pkey -pubout` wrote."
        raise Refused(f"{public} is no public key: {error}", fix) from None
    if not isinstance(key, Ed25519PublicKey):
        raise Refused(f"{public} is no ed25519 key", "Name the key that belongs to the one that signed.")
    if not signed(root):
        raise Refused(f"the bundle has no signature: {SIGNATURE} is missing", "Ask for a signed one.")
    with open(os.path.join(root, MANIFEST), "rb") as file, open(os.path.join(root, SIGNATURE), "rb") as signature:
        try:
            key.verify(base64.b64decode(signature.read()), file.read())
        except (InvalidSignature, ValueError):
            text = f"{MANIFEST} is not signed with the key of {public}"
            raise Refused(text, "Do not run it; ask who made it.") from None


def signed(root: str) -> bool:
    """Whether there is a signature, whoever's."""
    return _there(root, SIGNATURE)


def digest(root: str, name: str) -> str:
    """SHA-256 of a file of the bundle."""
    sha = hashlib.sha256()
    with open(os.path.join(root, name), "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            sha.update(chunk)
    return sha.hexdigest()


def _there(root: str, name: str) -> bool:
    return os.path.lexists(os.path.join(root, name))


def _entries(root: str) -> Iterator[Tuple[str, str]]:
    """Everything below `root` that is no directory: its name with slashes, and `file` or what it is instead."""
    for folder, folders, files in os.walk(root):
        for entry in sorted(folders + files):
            path = os.path.join(folder, entry)
            mode = os.lstat(path).st_mode
            name = os.path.relpath(path, root).replace(os.sep, "/")
            if stat.S_ISLNK(mode):
                yield name, "a link"
            elif stat.S_ISREG(mode):
                yield name, "file"
            elif not stat.S_ISDIR(mode):
                yield name, "no plain file"


def check_device(manifest: Dict[str, Any], capability: Optional[str]) -> None:
    """Raises Refused where the bundle is for a GPU of another compute capability than `capability`, such as "8.7".

    Where there is no GPU, and for a bundle that needs none, there is nothing to refuse.
    """
    needed = manifest["requires"]["compute_capability"]
    if needed is not None and capability is not None and capability != needed:
        text = "this bundle is for {} ({}), and the GPU is {}"
        what = text.format(sm(needed), manifest["target"]["title"], sm(capability))
        raise Refused(what, "Export one from a run whose target is that device.")


def check_engine(root: str, manifest: Dict[str, Any], model: Dict[str, Any], capability: Optional[str]) -> bool:
    """Whether build.sh has made the model's engine. Raises Refused where it is another one's, or another device's."""
    if model["engine"] is None or not _there(root, model["engine"]):
        return False
    record = engine_record(root, model)
    if record["engine_sha256"] != digest(root, model["engine"]):
        raise Refused("{} is not the engine that build.sh made".format(model["engine"]), "Run sh build.sh again.")
    if record["onnx_sha256"] != manifest["files"][model["path"]]["sha256"]:
        raise Refused("{} was made from another model".format(model["engine"]), "Run sh build.sh again.")
    if capability is not None and record["compute_capability"] != capability:
        text = "{} was made on {}, and the GPU here is {}"
        what = text.format(model["engine"], sm(record["compute_capability"]), sm(capability))
        raise Refused(what, "Run sh build.sh here.")
    return True


def engine_record(root: str, model: Dict[str, Any]) -> Dict[str, Any]:
    """What build.py wrote of an engine. Raises Refused."""
    name = model["engine"] + ".json"
    try:
        with open(os.path.join(root, name)) as file:
            record = json.load(file)
        return {key: record[key] for key in ("engine_sha256", "onnx_sha256", "compute_capability", "tensorrt")}
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused(
            "{} does not say how {} was made".format(name, model["engine"]), "Run sh build.sh again."
        ) from None


def check_tensorrt(manifest: Dict[str, Any], found: str) -> None:
    """Raises Refused where the TensorRT here, such as "10.3.0", is outside the range of the target's systems."""
    span = manifest["requires"]["tensorrt"]
    version = version_parts(found)
    low, high = version_parts(span["min"]), version_parts(span["max"]) if span["max"] else None
    if version < low or (high is not None and version[: len(high)] > high):
        text = "this bundle is for TensorRT {} to {}, and {} is here"
        what = text.format(span["min"], span["max"] or "any later", found)
        raise Refused(what, "Export one for a target with that TensorRT.")


def version_parts(version: str) -> Tuple[int, ...]:
    """(10, 3, 0) of "10.3.0.30": such tuples compare as versions do."""
    return tuple(int(part) for part in re.findall("[0-9]+", version)[:3])


def sm(capability: str) -> str:
    """`sm_87` of "8.7"."""
    return "sm_" + capability.replace(".", "")


def compute_capability() -> Optional[str]:
    """Of this machine's first GPU, such as "8.7"; None where there is no GPU or no driver of it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, device, part = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    driver.cuDeviceGet(ctypes.byref(device), 0)
    parts = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
        driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device)
        parts.append(str(part.value))
    return ".".join(parts)
