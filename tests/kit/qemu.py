# SPDX-License-Identifier: Apache-2.0
"""The same machines under QEMU's TCG, to check the tests themselves."""

import json
import socket


def command(spec, runtime):
    """QEMU's command line for a machine.Spec; its control socket is in the folder `runtime`."""
    words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-nodefaults",
             "-no-user-config", "-display", "none", "-serial", "stdio", "-qmp", f"unix:{runtime}/qmp,server,nowait",
             "-smp", str(spec.cpus), "-m", spec.memory, "-device", "virtio-rng-pci"]
    if spec.kernel:
        words += ["-kernel", str(spec.kernel)]
    if spec.kernel and spec.initrd:
        words += ["-initrd", str(spec.initrd)]
    if spec.kernel and spec.append:
        words += ["-append", spec.append]
    for number, disk in enumerate(spec.disks):
        flags = ",readonly=on" if disk.readonly else ",snapshot=on" if spec.snapshot else ""
        words += ["-drive", f"if=none,id=d{number},format=raw,file={disk.path}{flags}",
                  "-device", f"virtio-blk-pci,drive=d{number}"]
    if spec.net != "none":
        words += ["-netdev", f"user,id=n{_forwards(spec.net)}", "-device", "virtio-net-pci,netdev=n"]
    if spec.no_reboot:
        words.append("-no-reboot")
    return words


def _forwards(net):
    forward = net.partition("forward=")[2]
    if not forward:
        return ""
    protocol, address, port, guest = forward.split(":")
    return f",hostfwd={protocol}:{address}:{port}-:{guest}"


def qmp(runtime, name):
    """One command of the QEMU machine protocol."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{runtime}/qmp")
        stream = connection.makefile("rw")
        stream.readline()
        for execute in ("qmp_capabilities", name):
            stream.write(json.dumps({"execute": execute}) + "\n")
            stream.flush()
            stream.readline()
