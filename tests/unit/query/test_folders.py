from __future__ import annotations

from graphlib import TopologicalSorter

from tests.unit.test_imports import module_of, own_imports, sources


def test_the_folders_of_query_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in sources():
        layer, _, rest = module_of(path).partition(".")
        folder = rest.partition(".")[0]
        if layer == "query" and folder:
            targets = {name.split(".")[1] for name in own_imports(path) if name.startswith("query.")}
            graph.setdefault(folder, set()).update(targets - {folder})
    assert graph.keys() == {"filters", "indexes", "regex", "updates"}
    TopologicalSorter(graph).prepare()
