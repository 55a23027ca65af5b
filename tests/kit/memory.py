# SPDX-License-Identifier: Apache-2.0
"""What a machine costs its host."""

import re


def overhead(pid):
    """Resident bytes of the machine's process that are not guest RAM, code cache and host tables included. The
    proportional size counts a page that is mapped twice once."""
    total, guest = 0, False
    for line in open(f"/proc/{pid}/smaps"):
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            guest = "memfd:lodge-guest-ram" in line
        elif line.startswith("Pss:") and not guest:
            total += int(line.split()[1]) << 10
    return total
