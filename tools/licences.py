"""The licences of what unnoise needs, which must be installed here, its extras too.

    python tools/licences.py             # writes docs/reference/dependencies.md, and prints all that they need in turn
    python tools/licences.py --check     # exits with 1 where the page is not up to date

Either way a licence that is unknown or forbids commercial use ends it with 1.
"""

import re
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "dependencies.md"
HEAD = """# Dependencies and their licences

All allow commercial use; `python tools/licences.py` holds this page and all that these need in turn to it. This program
itself is MIT. On Linux torch brings NVIDIA's libraries, which are proprietary and free to use; its build for CPUs does without.

| package | for | licence |
|---|---|---|
"""
FORBIDDEN = re.compile(r"non-?commercial|\bNC\b|academic use|research only", re.I)
KNOWN = {"cuda-toolkit": "LicenseRef-NVIDIA-CUDA-EULA"}  # which its metadata does not say
NOT_SHIPPED = ("dev", "docs")  # extras for working on unnoise


def licence(name: str) -> str:
    """As the package's metadata says, "" where it does not."""
    about = distribution(name).metadata
    classifiers = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or () if c.startswith("License ::")]
    stated = about.get("License-Expression") or "; ".join(classifiers) or about.get("License") or ""
    return KNOWN.get(name) or stated.strip().partition("\n")[0]


def needed(requirement: str, extra: str = "") -> list[tuple[str, str]]:
    """What a requirement of a package, wanted with an extra, means here: a name with each extra that it wants, and without."""
    r = Requirement(requirement)
    applies = r.marker is None or r.marker.evaluate({"extra": extra})
    return [(canonicalize_name(r.name), e) for e in ("", *sorted(r.extras))] if applies else []


def everything(wanted: list[tuple[str, str]]) -> dict[str, str]:
    """The licences of packages, each with an extra or "", and of all that they need, by name, of those that are installed."""
    found: dict[str, str] = {}
    seen, wanted = set(), list(wanted)
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        with suppress(PackageNotFoundError):
            found[name] = licence(name)
            wanted += [each for r in distribution(name).requires or () for each in needed(r, extra)]
    return dict(sorted(found.items()))


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"always": project["dependencies"], **project["optional-dependencies"]}
    direct = {name: group for group, rs in groups.items() if group not in NOT_SHIPPED for r in rs for name, _ in needed(r)}
    rows = sorted(direct.items(), key=lambda item: (item[1] != "always", item[1], item[0]))
    text = HEAD + "".join(f"| {name} | {group} | {licence(name)} |\n" for name, group in rows)
    stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text
    if "--check" not in sys.argv and stale:
        PAGE.write_text(text, encoding="utf-8")
    found = everything([(name, "") for name in direct])
    bad = {name: own for name, own in found.items() if not own or FORBIDDEN.search(own)}
    print("".join(f"{name:30}{own}\n" for name, own in found.items()), end="")
    for name, own in bad.items():
        print(f"NOT ALLOWED: {name}: {own or 'no licence stated'}")
    print(f"{len(found)} packages, {len(bad)} of them not allowed")
    if "--check" in sys.argv and stale:
        print(f"{PAGE.relative_to(ROOT)} is not up to date: run python tools/licences.py")
    return int(bool(bad) or ("--check" in sys.argv and stale))


if __name__ == "__main__":
    sys.exit(main())
