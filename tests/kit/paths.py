# SPDX-License-Identifier: Apache-2.0
"""Where things are: the program under test, the guest material, scratch space."""

import os
import pathlib

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("LODGE_BUILD") or TOP / "build/release")
LODGE = pathlib.Path(os.environ.get("LODGE") or BUILD / "lodge")
CACHE = pathlib.Path(os.environ.get("LODGE_CACHE") or
                     pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lodge")
GUEST = CACHE / "guest"
KERNELS = BUILD / "tests/kernels"
CONSOLES = BUILD / "results/consoles"

VMLINUZ = GUEST / "vmlinuz"
# The kernel for real machines, of `tools/make-guest kernel-full`; its modules go by full=True to initrd_with().
VMLINUZ_FULL = GUEST / "vmlinuz-full"
INITRD = GUEST / "initrd.img"
DEBIAN = GUEST / "debian.ext4"
DEBIAN_TEST = GUEST / "debian-test.ext4"
DEBIAN_MORE = GUEST / "debian-more.ext4"
