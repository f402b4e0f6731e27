"""What OpenAPI is told of bodies that are read by hand, and of problems."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from dqecir.service.schemas import Attributes, ProblemDetails

_IMAGE = {"type": "string", "format": "binary", "description": "A picture."}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with."""
    content = {"application/problem+json": {"schema": ProblemDetails.model_json_schema()}}
    return {status: {"description": "A problem, in one sentence", "content": content} for status in statuses}


def body_of(schema: type[BaseModel], image: bool = False) -> dict[str, Any]:
    """A body that is JSON of a schema, or with ``image`` a form of it and a picture."""
    inline = _inline(schema)
    content: dict[str, Any] = {"application/json": {"schema": inline}}
    if image:
        form = {"type": "object", "properties": {"request": inline, "image": _IMAGE}, "required": ["request"]}
        content["multipart/form-data"] = {
            "schema": form,
            "encoding": {"request": {"contentType": "application/json"}},
        }
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


FORM_OF_ITEM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": _IMAGE, "attributes": _inline(Attributes)},
                    "required": ["image"],
                },
                "encoding": {"attributes": {"contentType": "application/json"}},
            }
        },
    }
}
