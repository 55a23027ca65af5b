# SPDX-License-Identifier: Apache-2.0
"""Peers on Lodge's networks: network namespaces that join by `lodge network attach`, with Linux's own network code inside."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from kit import paths
from kit.case import Skip

ROOT = os.geteuid() == 0
UDHCPC = """#!/bin/sh
case $1 in bound|renew)
  ip -4 addr flush dev $interface scope global
  ip addr add $ip/$mask dev $interface
  [ -n "$router" ] && ip route replace default via $router
  echo "$ip $router $dns $domain $hostname" >"$LEASE"
esac
"""


def need_namespaces():
    for program in ("unshare", "nsenter", "ip", "busybox"):
        if not shutil.which(program):
            raise Skip(f"there is no {program}")
    user = [] if ROOT else ["--user", "--map-root-user"]
    tried = subprocess.run(["unshare", *user, "--net", "ip", "tuntap", "add", "dev", "t0", "mode", "tap"],
                           capture_output=True, text=True)
    if tried.returncode != 0:
        raise Skip(f"no network namespace with a tap device: {tried.stderr.strip()}")


class Lodge:
    """Lodge commands over folders of this test's own."""

    def __init__(self, prefix=()):
        self.prefix = list(prefix)
        self.folder = tempfile.mkdtemp(prefix="lodge-net-")
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=self.folder, XDG_CONFIG_HOME=f"{self.folder}/config")

    def __call__(self, *words, check=True, timeout=60, status=0):
        done = subprocess.run([*self.prefix, str(paths.LODGE), *map(str, words)], capture_output=True, text=True,
                              env=self.environment, timeout=timeout, stdin=subprocess.DEVNULL)
        if check:
            assert done.returncode == status, f"lodge {words}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def fails(self, *words, saying):
        done = self(*words, check=False)
        lines = done.stderr.strip().splitlines()
        assert done.returncode != 0 and len(lines) == 1 and saying in lines[0], f"{words}: {done.returncode}: {done.stderr}"

    def log(self, name):
        return pathlib.Path(self.folder, "lodge-networks", name, "log").read_text(errors="replace")

    def network_process(self):
        """The folder of /proc of the process that serves a network of this object's."""
        for folder in pathlib.Path("/proc").iterdir():
            try:
                if (folder / "comm").read_text() == "lodge-network\n" and self.folder.encode() in (folder / "environ").read_bytes():
                    return folder
            except OSError:
                continue
        raise AssertionError("no network has a process")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for file in pathlib.Path(self.folder, "config/lodge/networks").glob("*.json"):
            self("network", "rm", file.stem, "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Namespace:
    """A network namespace that lives as long as the object."""

    def __init__(self, name):
        self.name = name
        user = [] if ROOT else ["--user", "--map-root-user"]
        self.holder = subprocess.Popen(["unshare", *user, "--net", "sh", "-c", "ip link set lo up; echo up; exec sleep 100000"],
                                       stdout=subprocess.PIPE, text=True)
        self.holder.stdout.readline()
        self.enter = ["nsenter", "-t", str(self.holder.pid), *([] if ROOT else ["-U", "--preserve-credentials"]), "-n"]
        self.address = self.router = self.dns = None

    def run(self, command, check=True, timeout=150):
        """150 s: the kernel may let one namespace wait while another is taken down on a busy host."""
        done = subprocess.run([*self.enter, "sh", "-c", command], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL)
        if check:
            assert done.returncode == 0, f"{self.name}: {command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr if check else done

    def start(self, command):
        return subprocess.Popen([*self.enter, "sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, stdin=subprocess.DEVNULL)

    def take_lease(self, options=""):
        with tempfile.TemporaryDirectory() as folder:
            script, lease = pathlib.Path(folder, "script"), pathlib.Path(folder, "lease")
            script.write_text(UDHCPC)
            script.chmod(0o755)
            self.run(f"LEASE={lease} busybox udhcpc -i eth0 -f -q -n -t 20 -T 1 {options} -s {script}")
            words = lease.read_text().split()
        self.address, self.router, self.dns = (words + [None] * 3)[:3]

    def pings(self, address, count=1, wait=5):
        family = "-6" if ":" in address else "-4"
        return self.run(f"busybox ping {family} -c {count} -W {wait} {address}", check=False).returncode == 0

    def must_ping(self, address, tries=10):
        for _ in range(tries):
            if self.pings(address, wait=2):
                return
            time.sleep(0.3)
        raise AssertionError(f"{self.name} does not reach {address}: {self.run('ip addr; ip route; ip neigh', check=False).stdout}")

    def address6(self, tries=60, card="eth0"):
        """The global address that came by a router's advertisement."""
        for _ in range(tries):
            for line in self.run(f"ip -6 -o addr show dev {card} scope global").splitlines():
                if "tentative" not in line:
                    return line.split()[3].split("/")[0]
            time.sleep(0.25)
        raise AssertionError(f"{self.name} has no IPv6 address: {self.run('ip -6 addr')}")

    def wait_for_port(self, port, tries=100):
        """Until somebody listens there by TCP."""
        for _ in range(tries):
            if f":{port:04X} " in self.run("cat /proc/net/tcp /proc/net/tcp6 | grep ' 0A '", check=False).stdout:
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.name}: nobody listens at port {port}")

    def close(self):
        self.holder.kill()
        self.holder.wait(20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Peer(Namespace):
    """A namespace with one card, eth0, on a network."""

    def __init__(self, lodge, network, name, settings="", lease=True):
        super().__init__(name)
        self.lodge, self.network, self.cable = lodge, network, None
        words = ["network", "attach", network, "--tap", "eth0", "--name", name]
        if settings:
            words += ["--set", settings]
        try:
            self.plug_in(words)
            self.run("ip link set eth0 up")
            if lease:
                self.take_lease()
        except BaseException as error:
            # Nothing that was started stays, and what the network and the kernel say of it is told.
            try:
                error.add_note(self.state())
            except Exception as other:
                error.add_note(f"its state: {other!r}")
            finally:
                self.close()
            raise

    def plug_in(self, words):
        # On a busy machine the network may have gone down again before the attachment comes.
        for last in (False, False, True):
            self.lodge("network", "up", "--while-used", self.network)
            self.cable = subprocess.Popen([*self.enter, str(paths.LODGE), *words], env=self.lodge.environment,
                                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if self.cable.stdout.readline():
                return
            said = self.cable.communicate()[1]
            if last or "is not up" not in said:
                raise AssertionError(said)

    def state(self):
        """For a failure's report: the network's view (a port's framesIn and framesOut), the card's, and whether both are there."""
        said = self.lodge("network", "show", self.network, "--json", check=False)
        ended = "runs" if self.cable and self.cable.poll() is None else f"has ended: {self.cable and self.cable.communicate()[1]}"
        return (f"the attachment {ended}\nthe network's state: {said.stdout}{said.stderr}\n"
                f"its log:\n{self.lodge.log(self.network)[-4000:]}\n"
                f"the card: {self.run('ip -s -d link show eth0', check=False).stdout}")

    def close(self):
        try:
            if self.cable:
                self.cable.terminate()
                self.cable.wait(20)
        finally:
            super().close()


def transfer(sender, receiver, address, megabytes=20):
    """TCP with its offloads from one peer to another; the digest must be the same."""
    family = "6" if ":" in address else "4"
    listen = receiver.start(
        f"python3 -c \"import socket,hashlib; s=socket.socket(socket.AF_INET{'6' if family == '6' else ''}); "
        "s.setsockopt(1,2,1); s.bind(('',7777)); s.listen(); print('up',flush=True); c,_=s.accept(); h=hashlib.sha256(); n=0\n"
        "while True:\n b=c.recv(1<<20)\n if not b: break\n h.update(b); n+=len(b)\nprint(n,h.hexdigest())\"")
    assert listen.stdout.readline() == "up\n"
    sent = sender.run(
        "python3 -c \"import socket,hashlib\n"
        f"s=socket.create_connection(('{address}',7777),timeout=20); b=bytes(range(256))*4096; h=hashlib.sha256()\n"
        f"for i in range({megabytes}): s.sendall(b); h.update(b)\n"
        "s.close(); print(h.hexdigest())\"").strip()
    got = listen.communicate(timeout=60)[0].split()
    assert got == [str(megabytes << 20), sent], (got, sent)
