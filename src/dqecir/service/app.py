"""The application: routes, problems, and the service behind them."""

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
    """Return an application whose model is read and whose index is open; raises ``DataError``."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="dqecir",
        version=version("dqecir"),
        description="A picture and what should change find the picture meant.",
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        # Their pages are made of files from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.page = page.page_files()
    problems.install(app)
    # In the order in which addresses are compared: what is asked most comes first.
    for group in (search, items, page, about, edits):
        app.include_router(group.router)
    app.add_middleware(
        Middleware, metrics=service.metrics, root_path=settings.root_path, origins=service.origins
    )
    return app
