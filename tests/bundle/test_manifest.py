"""A bundle that was changed in any way, or is for another device, is refused, and the file or device is named."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import manifest
from edgekd.stage import digest_file
from manifest import Refused

Reseal = Callable[..., None]


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.exit_code == 2 and caught.value.fix
    return caught.value.what


def open_zip(path: Path) -> None:
    with manifest.opened(str(path)) as root:
        manifest.check(root)


def test_one_byte_in_any_file(bundle: Path) -> None:
    manifest.check(str(bundle))
    for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
        content = file.read_bytes()
        for place in {0, len(content) // 2, len(content) - 1}:
            changed = bytearray(content)
            changed[place] ^= 1
            file.write_bytes(changed)
            assert file.relative_to(bundle).as_posix() in refusal(lambda: manifest.check(str(bundle))), (file, place)
        file.write_bytes(content)
    manifest.check(str(bundle))


def test_one_byte_in_any_file_of_a_zip(bundle: Path, tmp_path: Path) -> None:
    names = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
    for victim in names:
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            for name in names:
                content = bytearray((bundle / name).read_bytes())
                content[-1] ^= name == victim
                archive.writestr(name, bytes(content))
        assert victim in refusal(lambda: open_zip(tmp_path / "b.zip"))


def test_missing_and_too_many(bundle: Path) -> None:
    (bundle / "labels.json").unlink()
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "manifest.cpython-311.pyc").touch()
    what = refusal(lambda: manifest.check(str(bundle)))
    assert "labels.json is missing" in what
    assert "__pycache__/manifest.cpython-311.pyc is not in the manifest" in what


@pytest.mark.parametrize("name", ["MANIFEST.json", "MANIFEST.sha256"])
def test_without_its_list(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert name in refusal(lambda: manifest.check(str(bundle)))


@pytest.mark.parametrize("to_folder", [False, True])
def test_links(bundle: Path, to_folder: bool, tmp_path: Path) -> None:
    """Even to a file of the right content."""
    if to_folder:
        shutil.move(bundle / "cpp", tmp_path / "cpp")
        (bundle / "cpp").symlink_to(tmp_path / "cpp")
        assert "cpp is a link" in refusal(lambda: manifest.check(str(bundle)))
    else:
        shutil.move(bundle / "labels.json", tmp_path / "labels.json")
        (bundle / "labels.json").symlink_to(tmp_path / "labels.json")
        assert "labels.json is a link" in refusal(lambda: manifest.check(str(bundle)))


def test_a_pipe_is_not_read(bundle: Path) -> None:
    (bundle / "labels.json").unlink()
    os.mkfifo(bundle / "labels.json")
    assert "labels.json is no plain file" in refusal(lambda: manifest.check(str(bundle)))


def packed(bundle: Path, add: Callable[[zipfile.ZipFile], None]) -> Path:
    path = bundle.parent / "packed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(bundle).as_posix())
        add(archive)
    return path


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py", "a/../../evil.py", "..\\evil.py", "C:evil.py", "./x"])
def test_zip_slip(bundle: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(bundle, lambda archive: archive.writestr(zipfile.ZipInfo(name), "print('got out')"))
    unpacked = tmp_path / "deep" / "inside"
    unpacked.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert repr(name) in refusal(lambda: manifest.unpack(str(path), str(unpacked)))
    assert sorted(tmp_path.rglob("*")) == before  # nothing was written, not even what is harmless


def test_zip_with_a_link(bundle: Path) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        entry = zipfile.ZipInfo("models/link")
        entry.create_system = 3
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")

    assert "models/link is a link" in refusal(lambda: open_zip(packed(bundle, add)))


def test_zip_with_a_file_more(bundle: Path) -> None:
    assert "extra.py is not in its manifest" in refusal(
        lambda: open_zip(packed(bundle, lambda archive: archive.writestr("extra.py", "")))
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_with_a_name_twice(bundle: Path) -> None:
    path = packed(bundle, lambda archive: archive.writestr("verify.py", ""))
    assert "verify.py is in it twice" in refusal(lambda: open_zip(path))


def test_zip_whose_file_is_larger_than_listed(bundle: Path) -> None:
    (bundle / "labels.json").write_bytes(b" " * 1_000_000)
    assert "labels.json has 1000000 bytes" in refusal(lambda: open_zip(packed(bundle, lambda archive: None)))


def test_broken_zip(bundle: Path) -> None:
    path = packed(bundle, lambda archive: None)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "is no zip file" in refusal(lambda: open_zip(path))
    path.write_bytes(content[1000:])
    assert "packed.zip" in refusal(lambda: open_zip(path))


def test_not_a_bundle(tmp_path: Path) -> None:
    assert "does not exist" in refusal(lambda: open_zip(tmp_path / "nothing"))
    assert "MANIFEST.json" in refusal(lambda: manifest.check(str(tmp_path)))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("top/MANIFEST.json", "{}")
    assert "no MANIFEST.json at its top" in refusal(lambda: open_zip(tmp_path / "other.zip"))


def test_a_manifest_that_names_files_outside(bundle: Path, reseal: Reseal) -> None:
    reseal(bundle, lambda m: m["files"].update({"../../etc/passwd": {"sha256": "0" * 64, "bytes": 1}}))
    assert "../../etc/passwd" in refusal(lambda: manifest.check(str(bundle)))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": []}', b'{"files": {"a": {}}}', b"\xff"])
def test_no_manifest(content: bytes) -> None:
    assert "MANIFEST.json is no manifest" in refusal(lambda: manifest.read(content))


def test_a_manifest_of_another_format(written: Path) -> None:
    record = json.loads((written / "MANIFEST.json").read_text())
    assert "format 2" in refusal(lambda: manifest.read(json.dumps({**record, "format": 2}).encode()))


def test_another_gpu(written_for_jetson: Path, written: Path) -> None:
    held = manifest.check(str(written_for_jetson))
    what = refusal(lambda: manifest.check_device(held, "8.9"))
    assert "sm_87" in what and "sm_89" in what and "Orin Nano" in what
    manifest.check_device(held, "8.7")
    manifest.check_device(held, None)
    manifest.check_device(manifest.load(str(written)), "8.9")  # for a processor


@pytest.mark.parametrize(
    ("found", "fits"), [("8.4.1", False), ("8.5.2", True), ("10.3.0.30", True), ("10.16.1", True), ("11.4.0", False)]
)
def test_another_tensorrt(written_for_jetson: Path, found: str, fits: bool) -> None:
    held = manifest.load(str(written_for_jetson))
    if fits:
        manifest.check_tensorrt(held, found)
    else:
        assert f"8.5.2 to 10.16, and {found} is here" in refusal(lambda: manifest.check_tensorrt(held, found))


def engine(root: Path, **changes: str) -> dict[str, Any]:
    """A stand-in for an engine, which no runtime sees, with the record of build.py; returns its model's entry."""
    (model,) = (m for m in manifest.load(str(root))["models"] if m["name"] == "student-int8")
    (root / model["engine"]).write_bytes(b"ftrt and so on")
    record = {
        "engine_sha256": digest_file(root / model["engine"]),
        "onnx_sha256": digest_file(root / model["path"]),
        "compute_capability": "8.7",
        "tensorrt": "10.3.0",
    }
    (root / f"{model['engine']}.json").write_text(json.dumps({**record, **changes}))
    return dict(model)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine_sha256": "0" * 64}, ["is not the engine that build.sh made"]),
        ({"onnx_sha256": "0" * 64}, ["was made from another model"]),
        ({"compute_capability": "7.2"}, ["sm_72", "sm_87"]),
    ],
)
def test_an_engine_of_something_else(jetson: Path, changes: dict[str, str], words: list[str]) -> None:
    held, model = manifest.load(str(jetson)), engine(jetson, **changes)
    what = refusal(lambda: manifest.check_engine(str(jetson), held, model, "8.7"))
    assert all(word in what for word in ["models/student-int8/1/model.plan", *words])


def test_an_engine_that_was_built_here(jetson: Path) -> None:
    model = engine(jetson)
    held = manifest.check(str(jetson))  # files that build.sh makes are no extra files
    assert manifest.check_engine(str(jetson), held, model, "8.7")
    (jetson / f"{model['engine']}.json").unlink()
    assert "does not say how" in refusal(lambda: manifest.check_engine(str(jetson), held, model, "8.7"))
    (jetson / model["engine"]).unlink()
    assert not manifest.check_engine(str(jetson), held, model, "8.7")


def test_signature(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'edgekd[sign]'")
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

    from edgekd.bundle import verify_bundle, write_bundle

    keys = {name: ed25519.Ed25519PrivateKey.generate() for name in ("ours", "theirs")}
    for name, key in keys.items():
        plain = (s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(key.private_bytes(*plain))
        public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
    root = tmp_path / "signed"
    write_bundle(run, root, key=tmp_path / "ours.pem")
    manifest.check(str(root), str(tmp_path / "ours.pub"))
    for public, words in ((None, "signed, which was not checked"), (tmp_path / "ours.pub", "signed with that key")):
        assert words in verify_bundle(root, public=public, run=False)["lines"][0]
    what = refusal(lambda: manifest.check(str(root), str(tmp_path / "theirs.pub")))
    assert "MANIFEST.json is not signed with the key of" in what
    assert "no public key" in refusal(lambda: manifest.check(str(root), str(tmp_path / "ours.pem")))
    signature = (root / "MANIFEST.json.sig").read_bytes()
    (root / "MANIFEST.json.sig").write_bytes(b"A" + signature[1:])
    assert "MANIFEST.json.sig" in refusal(lambda: manifest.check(str(root)))  # a changed one is seen without a key
    (root / "MANIFEST.json.sig").unlink()
    assert "MANIFEST.sha256" in refusal(lambda: manifest.check(str(root)))
    (root / "MANIFEST.sha256").write_bytes(manifest.digests(str(root), ["MANIFEST.json"]))
    assert "no signature" in refusal(lambda: manifest.check(str(root), str(tmp_path / "ours.pub")))

    from edgekd.bundle.signing import sign
    from edgekd.errors import ConfigError

    other = x25519.X25519PrivateKey.generate().private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    (tmp_path / "other.pem").write_bytes(other)
    with pytest.raises(ConfigError, match="not an ed25519 key"):
        sign(b"", tmp_path / "other.pem")
    with pytest.raises(ConfigError, match="not a private key"):
        sign(b"", tmp_path / "ours.pub")


def test_signing_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.bundle.signing import sign
    from edgekd.errors import ConfigError

    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(ConfigError, match="needs the package cryptography"):
        sign(b"", tmp_path / "key.pem")


def test_digests_are_what_sha256sum_reads(bundle: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "MANIFEST.sha256"], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "MANIFEST.json: OK\n"
