"""Power, temperatures and clocks of a device beside a measurement; its power mode and clocks where that was asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgekd.errors import BackendError, TargetError
from edgekd.profile import tegrastats
from edgekd.profile.board import Board, power_mode

if TYPE_CHECKING:
    from edgekd.profile.hosts.agent import Agent, Lines

INTERVAL_MS = 100
IDLE_S = 1.5  # of samples of the idle device
# Over-current and under-voltage events since the start: of the kernel's soctherm driver, Orin and later.
EVENTS = "/sys/class/hwmon/hwmon*/oc*_event_cnt"
_SUDO = "Allow it there in sudoers without a password, or set it by hand and leave the flag out."


class Power:
    def __init__(self, agent: Agent, board: Board) -> None:
        self._agent, self._board = agent, board
        self._events: dict[str, int] = {}
        self._idle: list[tegrastats.Sample] = []

    def set_mode(self, name: str) -> None:
        """Switch nvpmodel to `name`, and back at the end. Raises TargetError, BackendError where it cannot be."""
        modes, before = self._board.power_modes, self._board.power_mode
        if name not in modes:
            known = ", ".join(modes) or "none: it has no /etc/nvpmodel.conf"
            raise TargetError(f"--set-power-mode: the device has no mode {name!r}", f"Its modes: {known}.")
        if name == before:
            return
        if before in modes:
            self._agent.undo(["sudo", "-n", "nvpmodel", "-m", str(modes[before])])
        self._sudo("nvpmodel", "-m", str(modes[name]))
        now = power_mode(self._agent.said)
        if now != name:
            raise BackendError(
                f"--set-power-mode {name}: the device is in {now} still",
                "Some changes need a restart: make it by hand.",
            )

    def lock_clocks(self, scratch: str) -> None:
        """Hold all clocks at the most that the power mode allows, and give them back at the end."""
        state = f"{scratch}/clocks"
        self._sudo("jetson_clocks", "--store", state)
        self._agent.undo(["sudo", "-n", "jetson_clocks", "--restore", state])
        self._sudo("jetson_clocks")

    def _sudo(self, *command: str) -> None:
        code, said = self._agent.said(["sudo", "-n", *command])
        if code != 0:
            raise BackendError(f"the device refuses sudo -n {' '.join(command)}: {said.strip() or code}", _SUDO)

    def watch(self) -> bool:
        """Sample the idle device for a moment, and go on; False where there is no tegrastats."""
        self._events = self._count()
        there = self._agent.watch(["tegrastats", "--interval", str(INTERVAL_MS)])
        if there:
            time.sleep(IDLE_S)
            self._idle = _samples(self._agent.watched())
            self._agent.watch(["tegrastats", "--interval", str(INTERVAL_MS)])
        return there

    def watched(self) -> dict[str, Any]:
        """Conditions of what ran since `watch`: tegrastats' summary, events, and warnings of throttling."""
        samples = _samples(self._agent.watched())
        events = {name: count - self._events.get(name, 0) for name, count in self._count().items()}
        warnings = []
        drop = tegrastats.clock_drop(samples)
        if drop is not None:
            hottest = max((max(s.temperatures.values()) for s in samples if s.temperatures), default=None)
            degrees = f", at up to {hottest:g} °C" if hottest is not None else ""
            warnings.append(f"the GPU's clock fell from {drop[0]} to {drop[1]} MHz during the run{degrees}")
        warnings += [f"throttled: {count} events of {name}" for name, count in events.items() if count > 0]
        out: dict[str, Any] = {"warnings": warnings}
        if samples:
            out["tegrastats"] = {**tegrastats.summary(samples), "interval_ms": INTERVAL_MS}
        if events:
            out["throttle_events"] = events
        return out

    def energy(self, lines: Lines, span: tuple[float, float], runs: int, batch: int) -> dict[str, Any]:
        """Energy of an image in mJ: mean power of the lines within `span`, in s of their clock, by images a second.

        `energy_mj` is all that the rail delivered, `energy_above_idle_mj` without what the idle device draws.
        """
        found = tegrastats.power_mw(_samples([line for line in lines if span[0] <= line[0] <= span[1]]))
        if found is None or runs == 0:
            return {}
        rail, power = found
        per_image = (span[1] - span[0]) / (runs * batch)
        out = {"rail": rail, "power_mw": round(power), "images": runs * batch, "energy_mj": round(power * per_image, 4)}
        idle = tegrastats.power_mw(self._idle)
        if idle is not None:
            out |= {
                "idle_power_mw": round(idle[1]),
                "energy_above_idle_mj": round((power - idle[1]) * per_image, 4),
            }
        return {"energy": out}

    def _count(self) -> dict[str, int]:
        texts = self._agent.read([EVENTS])
        return {path.rsplit("/")[-1].split("_")[0]: int(text) for path, text in texts.items() if text.strip().isdigit()}


def _samples(lines: Lines) -> list[tegrastats.Sample]:
    parsed = [tegrastats.parse(line) for _, line in lines]
    return [sample for sample in parsed if sample is not None]
