"""The tests. `PGDOC_TEST_PLUGIN` is the plugin of every store in them, and in their processes, that asks for none."""

import os

_plugin = os.environ.get("PGDOC_TEST_PLUGIN")
if _plugin:
    import pgdoc

    for _store in (pgdoc.Store, pgdoc.AsyncStore):
        _store.__init__.__kwdefaults__.update(plugin=_plugin)  # type: ignore[union-attr]
