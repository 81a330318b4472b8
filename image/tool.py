"""Programs that cargo installs, each of one version."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OWN = ROOT / "target/tools"


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
        if subprocess.run([os.environ.get("CARGO", "cargo"), *install], cwd=ROOT).returncode:
            return None
    return str(OWN / "bin" / name)
