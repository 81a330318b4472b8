"""Programs that cargo installs, each of one version."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OWN = ROOT / "target/tools"


# What tells cargo how another one runs. With cargo's own variables, build scripts that look at them run again, ring's for one, and all
# that stands on it is built again. With the wrapper, the tests lint while they build; what is installed or put into an image is built by
# the compiler alone.
OF_CARGO = ("CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "OUT_DIR", "RUSTC_WORKSPACE_WRAPPER")


def environment():
    """The variables for a cargo that builds for itself, also where a test of cargo calls this."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OF_CARGO)}


def recorded(root, name, version):
    """Whether cargo installed this very version below a folder."""
    record = root / ".crates.toml"
    return record.is_file() and f'"{name} {version} ' in record.read_text()


def installed(name, version):
    """The path of a program, which is built once into target/tools where it is missing. None if it cannot be built."""
    found = shutil.which(name)
    if found and recorded(pathlib.Path(found).parent.parent, name, version):
        return found
    if not recorded(OWN, name, version):
        print(f"Building {name} {version}, once, into target/tools (about 2 minutes on 2 cores) ...")
        sys.stdout.flush()
        install = ["install", "--quiet", "--locked", "--root", str(OWN), "--version", version, name]
        if subprocess.run([os.environ.get("CARGO", "cargo"), *install], cwd=ROOT, env=environment()).returncode:
            return None
    return str(OWN / "bin" / name)
