"""The ASGI application: its routes, its error responses, and the service that the routes use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from dqecir.service import problems
from dqecir.service.configuration import ServiceSettings
from dqecir.service.middleware import Middleware
from dqecir.service.routes import about, edits, items, page, search
from dqecir.service.service import Service


def create_app(settings: ServiceSettings) -> FastAPI:
    """Read the model, open the index, and return the application.

    Raises ``DataError`` if one cannot be read.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="dqecir",
        version=version("dqecir"),
        description="Search pictures with a reference image and a modification text.",
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        # FastAPI's pages of documentation load files from other servers.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.page = page.page_files()
    problems.install(app)
    # Addresses are compared in this order, so the most frequent come first.
    for group in (search, items, page, about, edits):
        app.include_router(group.router)
    app.add_middleware(
        Middleware, metrics=service.metrics, root_path=settings.root_path, origins=service.origins
    )
    return app
