# SPDX-License-Identifier: Apache-2.0
"""The Debian installer installs Debian on an empty disk, unattended, and the machine restarts from that disk to a login:
`install text|gtk`. The installer comes from a CD-ROM, by SeaBIOS and GRUB, and is on the frame buffer; packages come from
an archive that this test serves. The installer's log goes to the serial port."""

import functools
import http.server
import pathlib
import sys
import tarfile
import tempfile
import threading
import time

from kit import paths
from kit.archive import cpio_archive
from kit.case import Skip, main
from kit.installer import make_installer_iso
from kit.machine import Machine, Spec

KIND = sys.argv[1]
HOST = "10.0.2.2"   # this host, as user networking shows it
SECONDS = 3000      # for a step of the installation
PRESEED = """
d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string installed
d-i netcfg/get_domain string
d-i mirror/country string manual
d-i mirror/protocol select http
d-i mirror/http/hostname string HOST:PORT
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i mirror/suite string bookworm
d-i debian-installer/allow_unauthenticated boolean true
d-i debian-installer/allow_unauthenticated_ssl boolean true
d-i hw-detect/load_firmware boolean false
d-i clock-setup/utc boolean true
d-i clock-setup/ntp boolean false
d-i time/zone string UTC
d-i passwd/make-user boolean false
d-i passwd/root-password password secret
d-i passwd/root-password-again password secret
d-i partman-auto/method string regular
d-i partman-auto/disk string /dev/sda
d-i partman-auto/expert_recipe string one :: 1000 50 -1 ext4 $primary{ } $bootable{ } method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ / } .
d-i partman-auto/choose_recipe select one
d-i partman-basicfilesystems/no_swap boolean false
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i base-installer/install-recommends boolean false
d-i base-installer/kernel/image string linux-image-amd64
d-i apt-setup/use_mirror boolean true
d-i apt-setup/services-select multiselect
d-i apt-setup/non-free-firmware boolean false
d-i apt-setup/enable-source-repositories boolean false
d-i apt-setup/disable-cdrom-entries boolean true
d-i apt-setup/cdrom/set-first boolean false
d-i pkgsel/run_tasksel boolean false
d-i pkgsel/upgrade select none
d-i pkgsel/update-policy select none
popularity-contest popularity-contest/participate boolean false
d-i grub-installer/only_debian boolean true
d-i grub-installer/with_other_os boolean true
d-i grub-installer/bootdev string /dev/sda
d-i debian-installer/add-kernel-opts string console=ttyS0
d-i cdrom-detect/eject boolean false
d-i finish-install/reboot_in_progress note
"""

# Run by the installer when its log daemon has started.
LOG_TO_SERIAL = b"""#!/bin/sh
(while ! [ -e /var/log/syslog ]; do sleep 1; done; exec tail -n +1 -f /var/log/syslog) </dev/null >/dev/ttyS0 2>&1 &
"""
# Run when the base system is there: its apt takes the archive without a signature, too.
TRUST_THE_ARCHIVE = b"""#!/bin/sh
echo 'Acquire::AllowInsecureRepositories "true";' >/target/etc/apt/apt.conf.d/00insecure
"""


class Archive(http.server.SimpleHTTPRequestHandler):
    """The package archive, to the guest."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


def serve(folder):
    """The server, at a port of the loopback address."""
    archive = paths.GUEST / "installer-mirror.tar"
    if not archive.exists():
        raise Skip(f"there is no {archive}: tools/make-guest installer-mirror makes it")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "debian")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Archive, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def installed_system_answers(machine):
    console = machine.console
    console.wait_for("installed login: ", SECONDS)
    console.send("root\n")
    console.wait_for("Password: ", 60)
    console.send("secret\n")
    console.wait_for("root@installed:~# ", 120)
    console.send("stty -echo; export TERM=dumb PAGER=cat PS1= PS2=\n")
    for command in ("test $(findmnt -no SOURCE /) = /dev/sda1", "test $(findmnt -no FSTYPE /) = ext4",
                    "grep -q '^VERSION_ID=\"12\"' /etc/os-release", "test -z \"$(dpkg --audit)\"",
                    "grep -q console=ttyS0 /proc/cmdline", "systemctl is-system-running --wait"):
        console.check(command, 180)


def debian_installs():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        (folder / "archive").mkdir()
        server = serve(folder / "archive")
        preseed = PRESEED.replace("HOST", HOST).replace("PORT", str(server.server_address[1])).encode()
        # On the installer's screen "priority=critical" leaves no question that the answers above do not cover.
        more = cpio_archive([("preseed.cfg", 0o644, preseed),
                             ("lib/debian-installer-startup.d/S11serial-log", 0o755, LOG_TO_SERIAL),
                             ("usr/lib/post-base-installer.d/00trust", 0o755, TRUST_THE_ARCHIVE)])
        make_installer_iso(folder / "cd.iso", KIND, arguments="auto=true priority=critical", more=more)
        with open(folder / "disk.img", "wb") as disk:
            disk.truncate(3 << 30)
        options = ("--disk", f"{folder}/disk.img,bus=ide", "--cdrom", str(folder / "cd.iso"), "--boot", "cd", "--vnc", f"unix:{folder}/vnc")
        # The name is the guest's, too, by DHCP.
        with Machine(Spec(name="installed", kernel=None, memory="1G", cpus=2, net="user", options=options)) as machine:
            for step in ("partman", "debootstrap: ", "in-target: ", "grub-installer: ", "finish-install: "):
                machine.console.wait_for(step, SECONDS)
                print(f"{step} after {time.monotonic() - machine.started:.0f} s", flush=True)
            installed_system_answers(machine)
            print(f"restarted after {time.monotonic() - machine.started:.0f} s", flush=True)
            machine.console.send("systemctl poweroff\n")
            assert machine.wait_end(180) == 0


main(debian_installs)
