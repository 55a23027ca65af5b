# SPDX-License-Identifier: Apache-2.0
"""The time stamp counter as a program reads it: of a machine that is saved and restored, and of machines whose counter has another rate
than the host's."""

import json
import pathlib
import re
import subprocess
import tempfile
import time

from kit.archive import cpio_archive
from kit.boot_disk import initrd_with
from kit.case import main
from kit.machine import Machine, Spec

from state_bad_test import change_section
from state_test import Restored, with_script

SOURCES = pathlib.Path(__file__).resolve().parent / "guest"
# All programs in executors, where the host can.
EXECUTORS = ("--trace", "executors,executors-native")
# The program, and beside it a shell that tells the guest's clock.
SCRIPT = """
stty -echo
dmesg | grep -E 'Detected .* MHz processor'
echo "clocks: $(cat /sys/devices/system/clocksource/clocksource0/available_clocksource)"
/lodge/tsc &
while read -r word; do read -r up idle </proc/uptime; echo "up-$word=$up"; done
"""


def program_in(folder, script="exec /lodge/tsc\n"):
    program = pathlib.Path(folder) / "tsc"
    subprocess.run(["gcc", "-O2", "-static", "-o", program, SOURCES / "tsc.c"], check=True)
    return with_script(folder, script, [("lodge/tsc", 0o755, program.read_bytes())])


def goes_on(machine, in_executor, khz=None):
    """Some rounds; as many as it takes until an executor has run (a restored machine's memory is loaded first). Whether one did."""
    for rounds in range(1, 200):
        match = machine.console.wait_for(r"^tsc round \d+ agrees, (\d+) kHz|WRONG", 120)
        assert "WRONG" not in machine.console.text, re.search("WRONG.*", machine.console.text).group()
        found = int(match.group(1))
        assert khz is None or abs(found - khz) < 0.01 * khz, f"the program counts {found} kHz, not {khz}"
        counters = json.loads(machine.lodge("stats", "--json", machine.name))["counters"]
        stops = counters.get("vcpu0.executor_stops", 0)
        if rounds >= 4 and (stops > 100 or not in_executor):
            print(f"   {rounds} rounds of {found} kHz, {stops} stops of executors")
            return stops > 100
    raise AssertionError("no executor ran the program")


def time_stamps_go_on():
    """A program that computes reads its time stamp counter in an executor, where it is not the host's after a restore: it never goes
    back, and keeps its rate by the guest's clock."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        initrd, state = program_in(folder), pathlib.Path(folder) / "state"
        spec = Spec(initrd=initrd, append="console=ttyS0 quiet", memory="128M", engine="translate", options=EXECUTORS)
        with Machine(spec) as machine:
            goes_on(machine, False)
            in_executor = goes_on(machine, False)
            machine.lodge("save", machine.name, str(state), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors
        time.sleep(2)
        with Restored(state) as machine:
            goes_on(machine, in_executor)


def counter_is_set():
    """By root, while a program that computes reads it, in an executor."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        program, initrd = pathlib.Path(folder) / "moves", pathlib.Path(folder) / "initrd"
        subprocess.run(["gcc", "-O2", "-static", "-o", program, SOURCES / "tsc_moves.c"], check=True)
        initrd_with(initrd, ("msr",), "/lodge/program\nread -r line\n")
        data = initrd.read_bytes()
        initrd.write_bytes(data + bytes(-len(data) % 4) + cpio_archive([("lodge/program", 0o755, program.read_bytes())]))
        spec = Spec(initrd=initrd, append="console=ttyS0 clocksource=kvm-clock", memory="128M", engine="translate",
                    options=(*EXECUTORS, "--cpu", "host"))
        with Machine(spec) as machine:
            machine.console.wait_for(r"^it follows\r?$|it does not follow|/dev/cpu/0/msr: ", 240)
            assert "it follows" in machine.console.text, machine.console.tail()


class Uptime:
    """The guest's clock against the host's, from now on."""

    def __init__(self, machine):
        self.machine, self.count = machine, 0
        self.first = self.ask()

    def ask(self):
        """(guest's time, host's time, how wrong that may be): the best of several questions."""
        best = None
        for _ in range(8):
            self.count += 1
            word = f"{id(self)}-{self.count}"
            before = time.monotonic()
            self.machine.console.send(f"{word}\n")
            match = self.machine.console.wait_for(rf"^up-{word}=(\d+\.\d+)\r?$", 120)
            after = time.monotonic()
            if best is None or after - before < 2 * best[2]:
                best = float(match.group(1)), (before + after) / 2, (after - before) / 2 + 0.01
        return best

    def is_right(self):
        """Within 2 %, after so long that a tenth would be seen."""
        deadline = time.monotonic() + 120
        while True:
            last = self.ask()
            guest, host, error = last[0] - self.first[0], last[1] - self.first[1], last[2] + self.first[2]
            if host > 4 and error < 0.03 * host:
                break
            assert time.monotonic() < deadline, f"the answers took too long to tell: {error:.2f} s of {host:.1f}"
        print(f"   {guest:.2f} s in {host:.2f} (give or take {error:.2f})")
        assert abs(guest - host) < 0.02 * host + error, f"the guest's clock went {guest:.2f} s in {host:.2f} ({error:.2f})"


def counter_has_the_rate(megahertz, engines, options):
    """The guest is told of the rate, its clocks are right by the host's, on each engine in turn, and after a restore on a host of yet
    another rate."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        initrd, state = program_in(folder, SCRIPT), pathlib.Path(folder) / "state"
        spec = Spec(initrd=initrd, append="console=ttyS0", memory="128M", engine=engines[0],
                    options=("--cpu", f"host,tsc-frequency={megahertz}000000", *options))
        with Machine(spec) as machine:
            told = machine.console.wait_for(r"Detected (\d+)\.\d+ MHz processor", 240).group(1)
            assert int(told) == megahertz, f"the guest was told of {told} MHz"
            clocks = machine.console.wait_for(r"^clocks: (.*)\n", 240).group(1)
            assert "tsc" in clocks.split() and "kvm-clock" in clocks.split(), clocks
            in_executor = goes_on(machine, False, 1000 * megahertz) or goes_on(machine, False, 1000 * megahertz)
            for engine in [*engines[1:], engines[0]]:
                uptime = Uptime(machine)
                uptime.is_right()
                machine.lodge("engine", machine.name, engine, timeout=60)
                uptime.is_right()
                goes_on(machine, False, 1000 * megahertz)
            assert "unstable" not in machine.console.text, re.search(".*unstable.*", machine.console.text).group()
            machine.lodge("save", machine.name, str(state), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors
        # It asks for yet another rate than the saved one, which must be the machine's.
        was, now = b"%d000000" % megahertz, b"%d000000" % (megahertz + 1111)
        assert change_section(state, "configuration", lambda fields: fields.replace(was, now))
        with Restored(state, ("--engine", engines[-1])) as machine:
            uptime = Uptime(machine)
            goes_on(machine, in_executor and engines[-1] == "translate", 1000 * megahertz)
            uptime.is_right()


def counter_is_slower():
    counter_has_the_rate(1250, ("translate", "interpret", "translate"), EXECUTORS)


def counter_is_faster():
    counter_has_the_rate(4250, ("interpret", "translate"), ())


main(time_stamps_go_on, counter_is_set, counter_is_slower, counter_is_faster)
