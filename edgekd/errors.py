"""The exception tree. Every message names the field or file that is wrong and ends with what to do.

EdgekdError
├── InputError            the user's input cannot be used: exit code 2
│   ├── ConfigError       a field of the configuration
│   ├── DataError         a dataset or one of its files
│   ├── ModelError        a teacher, a checkpoint or an architecture
│   ├── TargetError       an unknown device, or a limit no student can meet there
│   ├── BundleError       a bundle that was changed, is incomplete, or is for another device
│   └── RunDirectoryError the output directory is in use or holds something else
└── RunError              a stage started and failed: exit code 3
    ├── BackendError      a runtime refused a graph or ran it somewhere else than asked
    ├── ParityError       an exported graph does not compute what the checkpoint computes
    ├── DiskFullError     no space left
    └── HostError         a device over SSH cannot be reached
        ├── HostKeyError        its host key is unknown, or another than before
        ├── AccessError         it takes none of the keys
        ├── ConnectionLostError the connection ended in the middle of something
        ├── DeviceBusyError     somebody else is measuring on it
        └── RuntimeMissingError it lacks Python or the runtime
"""

from __future__ import annotations


class EdgekdError(Exception):
    """`what` went wrong, naming the field or file; `fix` says what to do about it."""

    exit_code = 3

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}\n{fix}")
        self.what = what
        self.fix = fix


class InputError(EdgekdError):
    exit_code = 2


class ConfigError(InputError): ...


class DataError(InputError): ...


class ModelError(InputError): ...


class TargetError(InputError): ...


class BundleError(InputError): ...


class RunDirectoryError(InputError): ...


class RunError(EdgekdError): ...


class BackendError(RunError): ...


class ParityError(RunError): ...


class DiskFullError(RunError): ...


class HostError(RunError): ...


class HostKeyError(HostError): ...


class AccessError(HostError): ...


class ConnectionLostError(HostError): ...


class DeviceBusyError(HostError): ...


class RuntimeMissingError(HostError): ...
