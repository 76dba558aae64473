"""Installs into the environment that runs this: by uv, in a third of pip's time, or by pip.

    python .setup/install.py ARGUMENTS OF pip install
"""

import ast, os, subprocess, sys

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
SECTIONS = "global", "install", ":env:"  # what comes later counts
SAID_TO_UV = {  # option of pip: (variable of uv, what stands between several)
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
}


def told() -> dict[str, str]:
    "Where pip was told to find packages, as uv is told"
    lines = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True).stdout
    found = [line.partition("=") for line in lines.splitlines()]
    options = {name: ast.literal_eval(value) for name, _, value in found}
    said = {}
    for option, (variable, between) in SAID_TO_UV.items():
        values = [options[k] for s in SECTIONS if (k := f"{s}.{option}") in options]
        if values:
            said[variable] = between.join(values[-1].split())
    return said


def by_uv(args: list[str]) -> bool:
    "Did uv install it?"
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    # of several places the best version, as pip chooses; the system's certificates, as pip's
    ways = dict(UV_INDEX_STRATEGY="unsafe-best-match", UV_SYSTEM_CERTS="1")
    if subprocess.run([*PIP, "install", "-c", "constraints.txt", "uv"]).returncode:
        return False
    return subprocess.run(uv + args, env=os.environ | ways | told()).returncode == 0


def main(args: list[str]) -> int:
    if by_uv(args):
        return 0
    print("== uv cannot install it here; pip does, and takes a few minutes", flush=True)
    return subprocess.run([*PIP, "install", "--no-compile", *args]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
