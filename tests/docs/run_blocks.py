"""Run the Python blocks of a page that are no files, in order: `python -m tests.docs.run_blocks PAGE`."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

import django

from tests.docs.pages import blocks
from tests.docs.project import file_of
from tests.docs.test_blocks import check_output


def run(page: str) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python" and file_of(block) is None:
            code = compile("\n" * (block.line - 1) + block.code, page, "exec", dont_inherit=True)
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(code, namespace)  # noqa: S102 (that is the test)
            check_output(block, output.getvalue())


if __name__ == "__main__":
    if "DJANGO_SETTINGS_MODULE" in os.environ:  # `manage.py shell` does the same
        django.setup()
    run(sys.argv[1])
