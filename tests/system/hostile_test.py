# SPDX-License-Identifier: Apache-2.0
"""Guests that misbehave, and what the process costs: neither a crash nor a hang of Lodge's, whatever the guest does; memory
beyond the guest's own stays small. (tests/kernels has those that attack without an operating system.)"""

import signal
import socket
import time

from kit import paths
from kit.case import main
from kit.guest import Debian, run_busybox
from kit.machine import Machine, Spec
from kit.memory import overhead

OVERHEAD_LIMIT = 150 << 20


def kernel(name, *options, memory="128M", seconds=120):
    """Runs a test kernel to its end; returns (exit status, what Lodge said)."""
    with Machine(Spec(kernel=paths.KERNELS / f"{name}.elf", initrd=None, append="", memory=memory, no_reboot=True,
                      options=options)) as machine:
        return machine.wait_end(seconds), machine.errors


def triple_fault():
    status, errors = kernel("triple_fault")
    assert status == 6 and "the guest crashed" in errors, (status, errors)


def spins_with_interrupts_off():
    """Neither the power button nor a reset is heard by this guest; turning it off always works."""
    with Machine(Spec(kernel=paths.KERNELS / "spin.elf", initrd=None, append="", memory="128M", cpus=2)) as machine:
        time.sleep(1)
        machine.lodge("reset", machine.name)
        assert "running" in machine.lodge("ps")
        start = time.monotonic()
        machine.lodge("stop", "--timeout", "1", machine.name)
        assert machine.wait_end(30) == 8
        assert time.monotonic() - start < 30
    with Machine(Spec(kernel=paths.KERNELS / "spin.elf", initrd=None, append="", memory="128M")) as machine:
        time.sleep(0.5)
        machine.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        machine.process.send_signal(signal.SIGTERM)
        assert machine.wait_end(30) == 8


def a_pause_outlasts_resets():
    """Of a guest that resets itself all the time: one that it asked for before the pause must not end that."""
    with Machine(Spec(kernel=paths.KERNELS / "triple_fault.elf", initrd=None, append="", memory="128M")) as machine:

        def eventually(changes, seconds=60):
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                before = len(machine.console.text)
                time.sleep(1)
                if (len(machine.console.text) != before) == changes:
                    return True
            return False

        machine.console.wait_for("triple fault", 60)
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(60)
            control.connect(str(machine.runtime / "lodge" / machine.name / "control"))
            answers = control.makefile("r")
            for let_go in ("resume", "resume", "resume", "reset"):
                for request in ("pause", let_go):
                    assert eventually(changes=request == "pause"), machine.console.tail()
                    control.sendall(b'{"request":"%s"}\n' % request.encode())
                    assert '"error"' not in (answer := answers.readline()), answer
                    assert eventually(changes=request != "pause"), machine.console.tail()


def panics():
    status = None
    with Machine(Spec(append="console=ttyS0 panic=-1", no_reboot=True)) as machine:
        machine.console.wait_for("lodge-guest: ready", 240)
        machine.console.send("echo c >/proc/sysrq-trigger\n")
        machine.console.wait_for("Kernel panic", 60)
        status = machine.wait_end(60)
    assert status in (0, 6), status  # reset without reboot, or pvpanic where the kernel has its driver


def writes_to_every_device():
    """From user space of a root shell: every port, and every BAR of every device through sysfs, gets garbage."""
    script = r"""
i=0
for bar in /sys/bus/pci/devices/*/resource[0-5]; do
  [ -s $bar ] && dd if=/dev/urandom of=$bar bs=4 count=64 2>/dev/null
done
for config in /sys/bus/pci/devices/*/config; do
  for n in 1 2 3; do dd if=/dev/urandom of=$config bs=4 count=16 seek=1 2>/dev/null; done
done
# Not 0x604 (power off), 0xcf9, 0x92, 0x64 (resets) or the console's own line.
for port in $(seq 0 4 96) $(seq 112 4 140) $(seq 160 4 996) $(seq 1288 4 1536) $(seq 2000 64 65000); do
  dd if=/dev/urandom of=/dev/port bs=1 count=4 seek=$port 2>/dev/null
done
echo al"i"ve
"""
    with Machine(Spec(append="console=ttyS0 quiet", cpus=2, net="user", initrd=paths.INITRD)) as machine:
        machine.console.wait_for("lodge-guest: ready", 240)
        machine.console.send("stty -echo\n" + script)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and machine.process.poll() is None and "alive\n" not in machine.console.text:
            time.sleep(0.2)
        # The guest may be lost; the machine is not, and obeys.
        if machine.process.poll() is None:
            assert machine.name in machine.lodge("ps")
            machine.lodge("kill", machine.name)
        status = machine.wait_end(30)
        assert status in (0, 6, 8), f"status {status}: {machine.errors}"


def memory_is_bounded():
    """After much different code: 150 MiB at most beyond the guest's own memory."""
    with Debian(image=paths.DEBIAN_TEST, cpus=2, memory="1500M") as debian:
        after_boot = overhead(debian.machine.process.pid)
        for command in ("python3 -m test test_int test_json test_re test_struct >/dev/null 2>&1", "openssl speed -seconds 1 "
                        "-bytes 1024 sha256 >/dev/null 2>&1", "perl -e 'print $_ for sort map { $_ * 7 % 1009 } 1 .. 50000' | md5sum",
                        "node -e 'let s = 0; for (let i = 0; i < 3e6; i++) s += i % 7; console.log(s)'",
                        "find / -xdev -type f | head -n 20000 | xargs -n 1000 ls -l | md5sum", "git --version; gdb --version"):
            debian.run(f"cd /tmp; {command}", 400)
        after_work = overhead(debian.machine.process.pid)
        print(f"  beyond guest RAM: {after_boot >> 20} MiB after the boot, {after_work >> 20} MiB after work")
        assert max(after_boot, after_work) <= OVERHEAD_LIMIT
    # One CPU, and little of anything.
    status, output = run_busybox("cat /proc/meminfo | head -n 1", 240, memory="96M")
    assert status == 0 and "MemTotal" in output


main(triple_fault, spins_with_interrupts_off, a_pause_outlasts_resets, panics, writes_to_every_device, memory_is_bounded)
