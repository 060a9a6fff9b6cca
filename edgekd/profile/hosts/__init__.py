"""Where to measure: this machine, or a device that ssh reaches. `Device.host` says which.

What speaks to devices is imported when one is asked for: the local measuring process has no use for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgekd.errors import TargetError
from edgekd.profile.abilities import require_runnable
from edgekd.profile.device import Device
from edgekd.profile.devices import load_device
from edgekd.profile.hosts._base import Host, Worker
from edgekd.profile.hosts.address import SCHEME, Address, parse
from edgekd.profile.hosts.local import Local

if TYPE_CHECKING:
    from edgekd.profile.board import Board

__all__ = ["Address", "Host", "Worker", "label", "probe_host", "reach", "resolve_target"]


def reach(device: Device) -> Host:
    """The machine that `device` is measured on; connected when its `with` block begins.

    Raises TargetError where it cannot be measured from here.
    """
    if device.host == "local":
        require_runnable(device)
        return Local()
    from edgekd.profile.hosts.ssh import Ssh

    return Ssh(parse(device.host))


def resolve_target(target: str, *, set_power_mode: str | None = None, lock_clocks: bool = False) -> Device:
    """The device of `NAME`, `FILE.yaml`, `ssh://user@host`, or `NAME@ssh://user@host`.

    Without a name the machine is asked what it is, and its profile found. The last two arguments are for the
    device's own settings, which need its sudo. Raises TargetError, and HostError where it must be asked and cannot be.
    """
    name, marked, rest = target.partition(SCHEME)
    if not marked:
        device = load_device(target)
        if device.host == "local":
            if set_power_mode or lock_clocks:
                raise TargetError(
                    "--set-power-mode and --lock-clocks are for a device over SSH",
                    f"Name where it is: --target {target}@ssh://user@host",
                )
            return device
        address = parse(device.host)
    else:
        if name and not name.endswith("@"):
            raise TargetError(f"target {target}: no @ between the name and {SCHEME}", "Write NAME@ssh://user@host.")
        address = parse(SCHEME + rest)
        device = load_device(name[:-1]) if name else _found(address)
    address = replace(
        address,
        set_power_mode=set_power_mode or address.set_power_mode,
        lock_clocks=lock_clocks or address.lock_clocks,
    )
    return replace(device, host=address.url())


def label(device: Device) -> str:
    """What to call it beside others of the same profile, in a file's name: `x86-cpu`, `x86-cpu@board`."""
    if device.host == "local":
        return device.name
    address = parse(device.host)
    return f"{device.name}@{address.host}{f'-{address.port}' if address.port else ''}"


def probe_host(address: Address) -> Board:
    """What the machine there is. Raises HostError."""
    from edgekd.profile.hosts.agent import Agent, probe
    from edgekd.profile.hosts.ssh import Ssh

    with Ssh(address) as host, Agent(host, address) as agent:
        return probe(agent)


def _found(address: Address) -> Device:
    from edgekd.profile.board import find_profile

    return find_profile(probe_host(address), str(address))
