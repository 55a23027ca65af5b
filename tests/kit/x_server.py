# SPDX-License-Identifier: Apache-2.0
"""A screen for clients that show something, without a person before it."""

import os
import subprocess


def start_x_server(folder):
    """A screen for the client; its process and its number."""
    reader, writer = os.pipe()
    process = subprocess.Popen(["Xvfb", "-displayfd", str(writer), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
                               pass_fds=[writer], stdout=subprocess.DEVNULL, stderr=open(folder / "xvfb.log", "wb"))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return process, pipe.readline().strip()
