from hypothesis import settings

pytest_plugins = [
    "tests.fixtures.fix_async",
    "tests.fixtures.fix_leftovers",
    "tests.fixtures.fix_server",
    "tests.fixtures.fix_plugin",
    "tests.fixtures.fix_schema",
    "tests.fixtures.fix_streams",
]

settings.register_profile("pgdoc", deadline=None, print_blob=True)  # a slow machine is not a failure
settings.load_profile("pgdoc")
