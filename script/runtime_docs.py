"""Write docs/runtime-api.md from the OpenAPI document the agent serves.

Run with `.venv/bin/python -m script.runtime_docs`; a test sees that the page is in step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bastide_agent.openapi.document import read_document

PAGE = Path(__file__).parents[1] / "docs" / "runtime-api.md"
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
Node = dict[str, Any]


def resolve(document: Node, node: Node) -> Node:
    """What a `$ref` points at; anything else as it is."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def cell(text: str) -> str:
    """Text for a table cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def kind(schema: Node) -> str:  # noqa: PLR0911  (a case each)
    """A type in few words, with a link to what is described elsewhere."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(kind(choice) for choice in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map to {kind(schema['additionalProperties'])}"
    name = str(schema.get("type", "any"))
    return "bytes" if schema.get("format") == "binary" else name


def bounds(schema: Node) -> str:
    """Limits and the default, in words."""
    said = []
    if "minimum" in schema or "maximum" in schema:
        low, high = schema.get("minimum"), schema.get("maximum")
        said.append(f"{low:,} or more" if high is None else f"{low:,} to {high:,}")
    if "maxLength" in schema:
        said.append(f"at most {schema['maxLength']:,} characters")
    if "maxItems" in schema:
        said.append(f"at most {schema['maxItems']:,} items")
    if "default" in schema:
        said.append(f"default `{json.dumps(schema['default'])}`")
    return "; ".join(said)


def row(name: str, schema: Node, note: str, *, required: bool) -> str:
    """A field or parameter as a line of a table."""
    label = f"`{name}`" + ("\\*" if required else "")
    return f"| {label} | {kind(schema)} | {cell(note)} | {bounds(schema)} |"


def field_rows(document: Node, schema: Node) -> list[str]:
    """The fields of an object, those it is put together from included."""
    schema = resolve(document, schema)
    rows: list[str] = []
    for part in schema.get("allOf", []):
        rows += field_rows(document, part)
    required = schema.get("required", [])
    for name, value in schema.get("properties", {}).items():
        note = value.get("description", "")
        rows.append(row(name, value, note, required=name in required))
    return rows


HEAD = ["| name | type | meaning | limits |", "|---|---|---|---|"]


def table(rows: list[str]) -> list[str]:
    """A table, or nothing; equal rows once."""
    return [*HEAD, *dict.fromkeys(rows), ""] if rows else []


def body_lines(document: Node, content: Node) -> list[str]:
    """What a body of a request or an answer holds."""
    lines: list[str] = []
    for media, value in content.items():
        schema = value["schema"]
        rows = field_rows(document, schema)
        if "$ref" in schema or not rows:
            known = f": {kind(schema)}" if "$ref" in schema else ""
            lines += [f"`{media}`{known}", ""]
        else:
            lines += [f"`{media}`", "", *table(rows)]
    return lines


def operation(document: Node, path: str, method: str, item: Node) -> list[str]:
    """The section of one endpoint."""
    call = item[method]
    lines = [f"### `{method.upper()} {path}`", "", f"{call['summary']}.", ""]
    lines += [call["description"], ""] if "description" in call else []
    given = [*item.get("parameters", []), *call.get("parameters", [])]
    rows = [
        row(
            value["name"] + (" (header)" if value["in"] == "header" else ""),
            value["schema"],
            value.get("description", ""),
            required=value["required"],
        )
        for value in given
    ]
    lines += ["Parameters", "", *table(rows)] if rows else []
    if "requestBody" in call:
        needed = "Body" if call["requestBody"].get("required") else "Body (may be empty)"
        lines += [needed, "", *body_lines(document, call["requestBody"]["content"])]
    for status, answer in call["responses"].items():
        found = resolve(document, answer)
        if status.startswith(("1", "2")) or status == "default":
            label = "Any status" if status == "default" else status
            lines += [f"**{label}**: {found['description']}", ""]
            lines += body_lines(document, found.get("content", {}))
    refused = [
        f"| {status} | {cell(resolve(document, answer)['description'])} |"
        for status, answer in call["responses"].items()
        if status[0] in "45"
    ]
    return [*lines, "| error | code and meaning |", "|---|---|", *refused, ""]


def render(document: Node) -> str:
    """The whole page."""
    info = document["info"]
    lines = [f"# {info['title']}", "", info["description"], ""]
    lines += [
        "This page is written by `python -m script.runtime_docs` from the document that every",
        "workspace serves at `GET /openapi.json`. A \\* marks what is required or always there.",
        "",
    ]
    for tag in document["tags"]:
        lines += [f"## {tag['name'].capitalize()}", "", tag["description"], ""]
        for path, item in document["paths"].items():
            calls = [name for name in METHODS if name in item and tag["name"] in item[name]["tags"]]
            if "summary" in item and calls:  # every method does the same
                shown = {**item, "any": {**item[calls[0]], "summary": item["summary"],
                                         "description": item["description"]}}  # fmt: skip
                lines += operation(document, path, "any", shown)
                continue
            for method in calls:
                lines += operation(document, path, method, item)
    lines += ["## Documents", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += [f"### {name}", "", *table(field_rows(document, schema))]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(read_document()), encoding="utf-8")
