# SPDX-License-Identifier: Apache-2.0
"""TLS of the VNC server, with Debian's TigerVNC as the client."""

import os
import pathlib
import socket
import subprocess
import tempfile
import time

from kit.boot_disk import need
from kit.case import main
from kit.machine import Machine, Spec
from kit.x_server import start_x_server

SECONDS = 90
DISPLAY = 84   # the number of the machine's VNC display


def view(folder, screen, options):
    """What TigerVNC says until it shows the screen."""
    log = folder / "viewer.log"
    environment = dict(os.environ, DISPLAY=f":{screen}", HOME=str(folder))
    with open(log, "wb") as file:
        viewer = subprocess.Popen(["xtigervncviewer", *options, f"127.0.0.1:{5900 + DISPLAY}"], env=environment,
                                  stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        end = time.monotonic() + SECONDS
        while "Using pixel format" not in log.read_text(errors="replace"):
            assert viewer.poll() is None and time.monotonic() < end, log.read_text(errors="replace")
            time.sleep(0.2)
        time.sleep(1)   # the first update
        assert viewer.poll() is None, log.read_text(errors="replace")
    finally:
        viewer.kill()
        viewer.wait()
    return log.read_text(errors="replace")


def wait_for_port(machine):
    end = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", 5900 + DISPLAY), 5).close()
            return
        except OSError:
            assert time.monotonic() < end and machine.process.poll() is None, machine.errors
            time.sleep(0.1)


def check(setting, options, expected, make_files=lambda folder: None):
    need("Xvfb", "xtigervncviewer", "openssl")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        make_files(folder)
        vnc = f":{DISPLAY}{setting.format(folder=folder)}"
        server, screen = start_x_server(folder)
        try:
            with Machine(Spec(kernel=None, options=("--board", "pc", "--vnc", vnc))) as machine:
                wait_for_port(machine)
                text = view(folder, screen, [option.format(folder=folder) for option in options])
                assert expected in text, text
        finally:
            server.kill()
            server.wait()


def make_certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out",
                    folder / "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, capture_output=True)


def tls_with_a_certificate():
    check(",tls-cert={folder}/cert.pem,tls-key={folder}/key.pem", ["-SecurityTypes", "X509None", "-X509CA={folder}/cert.pem"],
          "Choosing security type X509None", make_certificate)


def tls_without_one():
    check(",tls", ["-SecurityTypes", "TLSNone"], "Choosing security type TLSNone")


main(tls_with_a_certificate, tls_without_one)
