from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
sys.modules["starlette"] = None
import pgdoc
try:
    import pgdoc.web
except pgdoc.MissingExtra as exc:
    print(exc)
"""


def test_without_starlette_the_import_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "pgdoc.web needs the package starlette: run pip install 'pgdoc[web]'\n"
