"""The tests. `PGDOC_TEST_PLUGIN` sets the default output plugin of every store, also in processes that tests start."""

import os

_plugin = os.environ.get("PGDOC_TEST_PLUGIN")
if _plugin:
    import pgdoc

    for _store in (pgdoc.Store, pgdoc.AsyncStore):
        _store.__init__.__kwdefaults__.update(plugin=_plugin)  # type: ignore[union-attr]
