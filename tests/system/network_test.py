# SPDX-License-Identifier: Apache-2.0
"""Guests on the network, all through user-mode NAT: apt from a repository on the host's loopback, large transfers, IPv6, and
two guests at once that reach each other through forwards."""

import functools
import hashlib
import http.server
import pathlib
import socket
import subprocess
import tempfile
import threading
import urllib.request

from kit import paths
from kit.case import main
from kit.guest import Debian

HOST = "10.0.2.2"  # the host's loopback, as the NAT shows it
MEGABYTES = 24


class Quiet(http.server.SimpleHTTPRequestHandler):
    received = {}

    def log_message(self, *_):
        pass

    def do_PUT(self):
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            part = self.rfile.read(min(left, 1 << 20))
            left -= len(part)
            digest.update(part)
        Quiet.received[self.path] = digest.hexdigest()
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Server:
    """An HTTP server over a folder, on a free port of the loopback."""

    def __init__(self, folder, address="127.0.0.1"):
        kind = http.server.ThreadingHTTPServer
        if ":" in address:
            kind = type("Server6", (kind,), {"address_family": socket.AF_INET6})
        self.server = kind((address, 0), functools.partial(Quiet, directory=folder))
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_repository(folder):
    """A flat repository with one package."""
    package = pathlib.Path(folder) / "work"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/bin").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: lodge-greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\n"
        "Description: a greeting\n")
    (package / "usr/bin/lodge-greeting").write_text("#!/bin/sh\necho installed through NAT\n")
    (package / "usr/bin/lodge-greeting").chmod(0o755)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", package, f"{folder}/lodge-greeting_1.0_all.deb"],
                   check=True, capture_output=True)
    packages = subprocess.run(["dpkg-scanpackages", "-m", "."], cwd=folder, check=True, capture_output=True, text=True)
    (pathlib.Path(folder) / "Packages").write_text(packages.stdout)


def apt_through_nat():
    with tempfile.TemporaryDirectory() as folder, Server(folder) as server, Debian() as debian:
        make_repository(folder)
        debian.check("rm -rf /etc/apt/sources.list.d/*; "
                     f"echo 'deb [trusted=yes] http://{HOST}:{server.port}/ ./' >/etc/apt/sources.list", 30)
        output = debian.check("apt-get -q update", 180)
        assert f"http://{HOST}:{server.port}" in output and "Err:" not in output, output
        debian.check("DEBIAN_FRONTEND=noninteractive apt-get -qy install lodge-greeting", 180)
        assert debian.check("lodge-greeting", 10) == "installed through NAT"
        debian.check(f"ping -c 1 -W 10 {HOST} || true", 30)  # answered where the host lets users ping


def transfers_are_whole():
    with tempfile.TemporaryDirectory() as folder, Server(folder) as server, Server(folder, "::1") as server6, \
            Debian() as debian:
        data = b"".join(hashlib.sha512(b"%d" % n).digest() for n in range(MEGABYTES << 14))
        (pathlib.Path(folder) / "data").write_bytes(data)
        wanted = hashlib.sha256(data).hexdigest()
        # The router's announcement and the search for duplicates of the address take the guest some seconds.
        debian.check("(for i in $(seq 120); do ip -6 addr | grep fec0 | grep -qv tentative && exit; sleep 0.5; done; exit 1)", 90)
        for url in (f"http://{HOST}:{server.port}", f"http://[fec0::2]:{server6.port}"):
            output = debian.check(f"curl -gsS --max-time 240 -o /root/data {url}/data && sha256sum </root/data", 250)
            assert output.split()[0] == wanted, f"{url}: {output}"
        debian.check(f"curl -sS --max-time 240 -T /root/data http://{HOST}:{server.port}/up", 250)
        assert Quiet.received.get("/up") == wanted
        # Many connections at once.
        loop = "(for i in $(seq 40); do curl -sS --max-time 100 http://%s:%d/small -o /root/small.$i & done; wait); " \
               "cat /root/small.* | sort | uniq -c"
        (pathlib.Path(folder) / "small").write_text("small\n")
        output = debian.check(loop % (HOST, server.port), 120)
        assert output.split() == ["40", "small"], output


def two_guests_at_once():
    """Each serves HTTP behind a forward; the host reaches both, and each reaches the other through the host."""
    ports = [free_port(), free_port()]
    with Debian(image=paths.DEBIAN_TEST, net=f"user,forward=tcp:127.0.0.1:{ports[0]}:8000", cpus=1) as first, \
            Debian(image=paths.DEBIAN_TEST, net=f"user,forward=tcp:127.0.0.1:{ports[1]}:8000", cpus=1) as second:
        guests = (first, second)
        for number, guest in enumerate(guests):
            guest.check(f"mkdir /srv/www && echo guest {number} >/srv/www/who", 10)
            guest.check("systemd-run -q --unit=web --working-directory=/srv/www python3 -m http.server 8000", 60)
            guest.check("(for i in $(seq 120); do curl -s localhost:8000/who && exit; sleep 0.5; done; exit 1)", 120)
        for number, port in enumerate(ports):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/who", timeout=60) as answer:
                assert answer.read().decode() == f"guest {number}\n"
        for number, guest in enumerate(guests):
            other = 1 - number
            assert guest.check(f"curl -sS --max-time 60 http://{HOST}:{ports[other]}/who", 70) == f"guest {other}"
        assert first.power_off() == 0
        assert second.check("cat /srv/www/who", 20) == "guest 1"
        assert second.power_off() == 0


main(apt_through_nat, transfers_are_whole, two_guests_at_once)
