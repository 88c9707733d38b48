"""The pytest plugin of pgdoc: `store`, `async_store` and the fixtures below them.

pytest imports this module in every run of an environment that has pgdoc. So it is outside of the package, whose import
takes much longer, and imports pgdoc when a test first asks for one of the fixtures.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from pgdoc import AsyncStore, Store
    from pgdoc.testing import PgdocServer

_LoopScope = Literal["function", "class", "module", "package", "session"]
_LOOP_SCOPES: tuple[_LoopScope, ...] = ("function", "class", "module", "package", "session")  # of pytest-asyncio
_NEEDS_ASYNCIO = (
    "async_store needs asyncio, and anyio runs this test on {}: run the tests on asyncio only, with\n\n"
    "    @pytest.fixture\n"
    "    def anyio_backend():\n"
    '        return "asyncio"\n\n'
    "in conftest.py"
)
_NO_SERVER = (
    "there is no PostgreSQL for this test: {}. The environment variable PGDOC_TEST_DSN names the server; without it, "
    "the tests start one of their own"
)
_RUN_BY_BOTH = (
    "async_store belongs to one event loop, and both pytest-asyncio and anyio run this test: "
    "set asyncio_mode = strict, or mark the test for one of them"
)


@pytest.fixture(scope="session")
def pgdoc_prepare() -> Callable[[str], object] | None:
    """A function that gets the conninfo of the template of all databases, once; override it in the top conftest.py."""
    return None


@pytest.fixture(scope="session")
def pgdoc_server(pgdoc_prepare: Callable[[str], object] | None) -> Iterator[PgdocServer]:
    """A PostgreSQL server for tests: that of PGDOC_TEST_DSN, or a private one, which ends with the run."""
    from pgdoc import PgdocError  # noqa: PLC0415 (see above)
    from pgdoc.testing import open_server  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(open_server(pgdoc_prepare))
        except PgdocError as exc:
            pytest.fail(_NO_SERVER.format(exc), pytrace=False)
        yield server


@pytest.fixture
def pgdoc_conninfo(pgdoc_server: PgdocServer) -> Iterator[str]:
    """The conninfo of a database of the test's own, with pgdoc's catalog; that of `store` and `async_store`."""
    with pgdoc_server.database() as conninfo:
        yield conninfo


@pytest.fixture
def pgdoc_store_args() -> dict[str, Any]:
    """Arguments of `store` and `async_store`, such as {"schema": "shop"}; override it to change them."""
    return {}


@pytest.fixture
def store(pgdoc_conninfo: str, pgdoc_store_args: dict[str, Any]) -> Iterator[Store]:
    """A `pgdoc.Store` in a database of the test's own."""
    from pgdoc import Store  # noqa: PLC0415 (see above)

    with Store(pgdoc_conninfo, **pgdoc_store_args) as store:
        yield store


@pytest.fixture
def async_store(request: pytest.FixtureRequest) -> AsyncStore:
    """A `pgdoc.AsyncStore` in a database of the test's own, with pytest-asyncio or anyio."""
    store: AsyncStore = request.getfixturevalue(_async_fixture_of(request))
    return store


def _async_fixture_of(request: pytest.FixtureRequest) -> str:
    """Return the fixture that closes the store in the event loop of the test."""
    is_of_anyio = "anyio_backend" in request.fixturenames
    if request.node.get_closest_marker("asyncio") and _has_pytest_asyncio(request.config):
        if is_of_anyio:
            pytest.fail(_RUN_BY_BOTH, pytrace=False)
        return f"_pgdoc_async_store_of_{_loop_scope_of(request)}"
    if is_of_anyio:
        backend = request.getfixturevalue("anyio_backend")
        name = backend if isinstance(backend, str) else backend[0]
        if name != "asyncio":
            pytest.fail(_NEEDS_ASYNCIO.format(name), pytrace=False)
        return "_pgdoc_async_store_of_anyio"
    return "_pgdoc_async_store_of_test"


def _loop_scope_of(request: pytest.FixtureRequest) -> str:
    """Return the scope of the event loop in which pytest-asyncio runs the test."""
    marker = request.node.get_closest_marker("asyncio")
    return str(
        marker.kwargs.get("loop_scope")
        or marker.kwargs.get("scope")
        or request.config.getini("asyncio_default_test_loop_scope")
    )


async def _open_async_store(pgdoc_conninfo: str, pgdoc_store_args: dict[str, Any]) -> AsyncIterator[AsyncStore]:
    from pgdoc import AsyncStore  # noqa: PLC0415 (see above)

    async with AsyncStore(pgdoc_conninfo, **pgdoc_store_args) as store:
        yield store


_pgdoc_async_store_of_anyio = pytest.fixture(name="_pgdoc_async_store_of_anyio")(_open_async_store)


@pytest.fixture
def _pgdoc_async_store_of_test(
    request: pytest.FixtureRequest, pgdoc_conninfo: str, pgdoc_store_args: dict[str, Any]
) -> Iterator[AsyncStore]:
    """A store for a test that runs an event loop itself, or that an unknown plugin runs in one."""
    import asyncio  # noqa: PLC0415 (takes as long as all of this module)

    from pgdoc import AsyncStore  # noqa: PLC0415 (see above)

    store = AsyncStore(pgdoc_conninfo, **pgdoc_store_args)
    if inspect.iscoroutinefunction(request.node.obj):
        request.node.obj = _closing(store, request.node.obj)
    yield store
    try:
        asyncio.run(store.close())
    except RuntimeError as exc:
        if "loop is closed" not in str(exc):  # its connections end with the database; its streams have ended
            raise


def _closing(store: AsyncStore, test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Wrap a test so that it closes the store, because its event loop ends with it."""

    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        async with store:
            await test(*args, **kwargs)

    return run


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Define the fixtures for pytest-asyncio, if it is active."""
    if _has_pytest_asyncio(config):
        config.pluginmanager.register(_fixtures_of_pytest_asyncio(), "pgdoc-asyncio")


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    plugin = sys.modules.get("pytest_asyncio.plugin")
    return plugin is not None and config.pluginmanager.is_registered(plugin)


def _fixtures_of_pytest_asyncio() -> ModuleType:
    """Return a plugin with a fixture for each scope that the event loop of a test can have."""
    import pytest_asyncio  # noqa: PLC0415 (optional)

    plugin = ModuleType("_pgdoc_pytestplugin_asyncio")
    for scope in _LOOP_SCOPES:

        async def open_store(pgdoc_conninfo: str, pgdoc_store_args: dict[str, Any]) -> AsyncIterator[AsyncStore]:
            async for store in _open_async_store(pgdoc_conninfo, pgdoc_store_args):
                yield store

        name = f"_pgdoc_async_store_of_{scope}"
        setattr(plugin, name, pytest_asyncio.fixture(name=name, loop_scope=scope)(open_store))
    return plugin
