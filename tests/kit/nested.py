# SPDX-License-Identifier: Apache-2.0
"""A host with a working KVM where this one has none: Debian's cloud kernel under QEMU's TCG, which emulates AMD's SVM,
with its own KVM modules and Lodge with its libraries in the initramfs. Machines in it run by --engine kvm, one level down.

By hand: tests/kit/run_nested.py COMMAND, e.g. 'lodge doctor'."""

import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile

from kit import paths
from kit.archive import cpio_archive
from kit.case import Skip
from kit.console import Console, ConsoleTimeout
from kit.machine import _die_with_parent

# Unless told that the TSC can be relied on, the kernel gives it up (this processor does not say that it is invariant), and
# its KVM then stops the guest's TSC whenever the guest does not run. Its check of the timer's interrupt fails on a busy
# host, and leaves it without one.
APPEND = "console=ttyS0 quiet tsc=reliable clocksource=tsc no_timer_check nowatchdog mitigations=off"
# With SMAP, QEMU 7.2 faults where a program in user mode executes IRET, as the interpreter's native routines do.
CPU = "max,-smap"
STARTS = 180  # seconds, for each of two parts
PREPARE = """
for module in $(cat /lodge/modules/order); do insmod /lodge/modules/$module || exit 90; done
[ -c /dev/kvm ] || { echo 'no /dev/kvm'; exit 91; }
echo "nested: KVM is there"
mkdir -p /run /root /var/tmp
export HOME=/root XDG_RUNTIME_DIR=/run PATH=$PATH:/lodge
# On a busy host the first level may stand still for the seconds that the probe has. What it says at last is kept.
for try in 1 2 3 4 5 6 7 8; do lodge doctor --json | grep -q '"choice": "kvm"' && break; done
echo "nested: ready"
sh /lodge/script
echo "nested: exit status $?"
"""


def have_kvm_here():
    """Whether this host's own KVM passes the probe."""
    done = subprocess.run([paths.LODGE, "doctor", "--json"], capture_output=True, text=True)
    return re.search(r'"kvm": \{[^}]*"usable": true', done.stdout) is not None


def packed(program, name):
    """The program as lodge/NAME, with the shared libraries that it needs at their own places."""
    entries = [(f"lodge/{name}", 0o755, pathlib.Path(program).read_bytes())]
    listed = subprocess.run(["ldd", program], capture_output=True, text=True)
    for library in re.findall(r"(/\S+) \(0x", listed.stdout):
        entries.append((library.lstrip("/"), 0o755, pathlib.Path(library).read_bytes()))
    return entries


def kernel_modules(further=()):
    """The kernel's KVM modules and `further` ones by name, and a list of them in the order in which they load."""
    with tarfile.open(paths.GUEST / "modules.tar") as tar:
        names = {pathlib.Path(name).name: name for name in tar.getnames()}
        dependencies = tar.extractfile(names["modules.dep"]).read().decode()
        order = []
        for line in dependencies.splitlines():
            module, _, needs = line.partition(":")
            if pathlib.Path(module).stem in ("kvm-amd", *further):
                order += [each for each in [*reversed(needs.split()), module] if each not in order]
        bare = [pathlib.Path(each).name for each in order]
        entries = [(f"lodge/modules/{name}", 0o644, tar.extractfile(names[name]).read()) for name in bare]
    return [*entries, ("lodge/modules/order", 0o644, "\n".join(bare).encode())]


class FirstLevel:
    """The first-level guest, running a script in which `lodge` is Lodge. A context manager."""

    def __init__(self, script, files=(), disks=(), cpus=1, memory="2G", programs=(), modules=()):
        """`files`: (name, bytes), to be found under /lodge unless the name begins with /; `disks`: host files, as /dev/vda and so on, whose changes are
        dropped; `programs`: (path, name) of further programs to be packed with their libraries; `modules`: of the kernel's, by name."""
        if not shutil.which("qemu-system-x86_64"):
            raise Skip("there is no qemu-system-x86_64 here, and no KVM that works")
        self._folder = tempfile.TemporaryDirectory(prefix="lodge-nested-")
        initrd = pathlib.Path(self._folder.name) / "initrd"
        entries = [("lodge/run", 0o755, PREPARE.encode()), ("lodge/script", 0o755, script.encode()), *kernel_modules(modules), *packed(paths.LODGE, "lodge"),
                   ("lodge/vmlinuz", 0o644, paths.VMLINUZ.read_bytes()), ("lodge/initrd", 0o644, paths.INITRD.read_bytes())]
        for path, name in programs:
            entries += packed(path, name)
        entries += [(name.lstrip("/") if name.startswith("/") else f"lodge/{name}", 0o755, data) for name, data in files]
        unique = {name: (name, mode, data) for name, mode, data in entries}
        first = paths.INITRD.read_bytes()
        initrd.write_bytes(first + bytes(-len(first) % 4) + cpio_archive(list(unique.values())))
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-machine", "q35", "-nodefaults",
                   "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-smp", str(cpus), "-m", memory,
                   "-kernel", str(paths.VMLINUZ), "-initrd", str(initrd), "-append", APPEND, "-device", "virtio-rng-pci"]
        for number, disk in enumerate(disks):
            command += ["-drive", f"if=none,id=d{number},format=raw,file={disk},snapshot=on",
                        "-device", f"virtio-blk-pci,drive=d{number}"]
        paths.CONSOLES.mkdir(parents=True, exist_ok=True)
        self._command, self._starts = command, 0

    def _start(self):
        self._starts += 1
        log = paths.CONSOLES / f"{os.environ.get('LODGE_TEST_NAME', 'nested')}-{os.getpid()}-{self._starts}.log"
        self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                        preexec_fn=_die_with_parent)
        self.console = Console(self.process.stdout.fileno(), self.process.stdin.fileno(), log)

    def __enter__(self):
        """Started, and once more where nothing came of it: emulated processors have stood still for good, once, before any
        machine of Lodge's was there. It takes 2 to 20 seconds."""
        while True:
            self._start()
            try:
                self._wait("^nested: KVM is there$")
                self._wait("^nested: ready$")
                return self
            except ConsoleTimeout as timeout:
                self._stop()
                if self._starts == 3:
                    self._folder.cleanup()
                    raise
                print(f"  the first level did not start: {timeout}")

    def _wait(self, pattern):
        """For a part of the start. On a host that has no processor for it, as long as it takes: a new one would be no better off."""
        for _ in range(4):
            ran, waited = self._processor_seconds()
            try:
                return self.console.wait_for(pattern, STARTS)
            except ConsoleTimeout:
                now_ran, now_waited = self._processor_seconds()
                if now_ran - ran > STARTS / 4 or now_waited - waited < STARTS / 2:
                    raise
                print(f"  the first level had {now_ran - ran:.0f} of {STARTS} seconds, and waited for a processor for {now_waited - waited:.0f}")
        return self.console.wait_for(pattern, STARTS)

    def _processor_seconds(self):
        """How long its threads have run, and have waited for a processor."""
        ran = waited = 0
        for path in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            try:
                times = path.read_text().split()
            except OSError:  # a thread that has ended
                continue
            ran, waited = ran + int(times[0]) / 1e9, waited + int(times[1]) / 1e9
        return ran, waited

    def __exit__(self, *_):
        self._stop()
        self._folder.cleanup()

    def _stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.console.join(10)

    def result(self, seconds):
        """Waits for the script's end; returns (exit status, its output)."""
        end = self.console.wait_for(r"^nested: exit status (\d+)$", seconds)
        text = self.console.text
        return int(end.group(1)), text[text.index("nested: ready\n") + len("nested: ready\n"):end.start()].strip("\n")
