"""OpenAPI descriptions of what FastAPI does not see: bodies that are read by hand, and error responses."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from dqecir.service.schemas import Attributes, ProblemDetails

_IMAGE = {"type": "string", "format": "binary", "description": "A picture."}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the error statuses that a route may return."""
    content = {"application/problem+json": {"schema": ProblemDetails.model_json_schema()}}
    return {status: {"description": "A problem, in one sentence", "content": content} for status in statuses}


def body_of(schema: type[BaseModel], image: bool = False) -> dict[str, Any]:
    """Return the OpenAPI description of a JSON body; with ``image``, also of a form with a picture."""
    form = _form("request", schema, "request") if image else {}
    return _body({"application/json": {"schema": _inline(schema)}, **form})


def _form(field: str, schema: type[BaseModel], required: str) -> dict[str, Any]:
    """Return the OpenAPI description of a form: a ``field`` of JSON, and a picture.

    ``required`` names the one of the two that must be sent.
    """
    properties = {field: _inline(schema), "image": _IMAGE}
    form = {"type": "object", "properties": properties, "required": [required]}
    encoding = {field: {"contentType": "application/json"}}
    return {"multipart/form-data": {"schema": form, "encoding": encoding}}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def _inline(schema: type[BaseModel]) -> dict[str, Any]:
    described = schema.model_json_schema()
    parts = described.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, dict):
            name = str(part.get("$ref", "")).removeprefix("#/$defs/")
            own = {key: inlined(value) for key, value in part.items() if key != "$ref"}
            return {**inlined(parts[name]), **own} if name else own
        return [inlined(one) for one in part] if isinstance(part, list) else part

    whole: dict[str, Any] = inlined(described)
    return whole


FORM_OF_ITEM = _body(_form("attributes", Attributes, "image"))
