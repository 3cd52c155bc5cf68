"""Files changed at random: bytes, lines, fields, numbers, values of JSON; cut, doubled, emptied, exchanged."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ODD_BYTES = (
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\n",
    b"\r",
    b"\t",
    b'"',
    b"'",
    b"|",
    b"::",
    b",",
    b"{",
    b"[",
    b"\x1b[31m",
    b"-",
)
ODD_FIELDS = (
    *(
        "",
        " ",
        "nan",
        "NaN",
        "None",
        "null",
        "-1",
        "0",
        "1e400",
        "9" * 5000,
        "9" * 30,
        "1.5",
        "-0",
        "inf",
        "0x10",
        "0x" + "f" * 5000,
        "\\u0000",
    ),
    *("\u0661\u0662", "\u00b2", "\ufeff", "\u202e", "\ud83d\ude00", "=1+1", "a" * 3000, "../../x", "%s", "{}"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**63, 10**40, 1.5, 1e308, float("nan"), float("inf"), "", "x", "\x1b[31m", "../x"),
    *([], {}, [None], [[]], {"a": 1}, "9" * 300, -0.0),
)
SEPARATORS = ("\t", "::", "|", ",", " ")


def mutated(content: bytes, chance: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """The content with one to three changes; ``others`` are files whose content may stand in its place."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        content = chance.choice(_WAYS)(content, chance)
    if others and chance.random() < 0.03:
        return chance.choice(others)
    return content


def mutated_file(path: Path, chance: random.Random, others: Sequence[bytes] = ()) -> None:
    """The file changed in its place; what a gzip file holds, or its bytes."""
    content = path.read_bytes()
    if path.suffix == ".gz" and chance.random() < 0.7:
        path.write_bytes(gzip.compress(mutated(gzip.decompress(content), chance, others), 1))
        return
    path.write_bytes(mutated(content, chance, others))


def _bytes(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    kind = chance.randrange(4)
    if kind == 0:
        return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + chance.choice(ODD_BYTES) + content[at:]
    if kind == 2:
        return content[:at] + content[at + chance.randint(1, 9) :]
    return (
        content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :] if at < len(content) else b""
    )


def _cut(content: bytes, chance: random.Random) -> bytes:
    kind, at = chance.randrange(4), chance.randrange(len(content) + 1)
    return (content[:at], content[at:], b"", content[: -chance.randint(1, 3)])[kind]


def _whole(content: bytes, chance: random.Random) -> bytes:
    kind = chance.randrange(5)
    if kind == 0:
        return content + content
    if kind == 1:
        return b"\xef\xbb\xbf" + content
    if kind == 2:
        return content.replace(b"\n", b"\r\n")
    text = content.decode("utf-8", "replace")
    return text.encode("utf-16") if kind == 3 else text.encode("latin-1", "replace")


def _lines(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    kind = chance.randrange(5)
    if kind == 0:
        lines.insert(at, lines[other])
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        lines.insert(at, chance.choice((b"\n", b" \n", b"\t\t\n", b"# x\n", b"{}\n", b"[]\n")))
    else:
        lines[at] = lines[at].rstrip(b"\r\n")
    return b"".join(lines)


def _fields(content: bytes, chance: random.Random) -> bytes:
    """A field between separators, or a word or number, is another."""
    text = content.decode("utf-8", "surrogateescape")
    kind = chance.randrange(3)
    if kind == 0:
        spans = [match.span() for match in re.finditer(r"[^\W_]+|\d+(?:\.\d+)?", text)]
        if not spans:
            return content
        first, last = chance.choice(spans)
        odd = chance.choice((*ODD_FIELDS, *(text[slice(*chance.choice(spans))] for _ in range(4))))
        return _encoded(text[:first] + odd + text[last:])
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    separator = max(SEPARATORS, key=lines[at].count)
    fields = lines[at].split(separator)
    place = chance.randrange(len(fields))
    if kind == 1:
        fields[place] = chance.choice(ODD_FIELDS)
    else:
        fields[place : place + 1] = chance.choice(([], [fields[place]] * 2))
    lines[at] = separator.join(fields)
    return _encoded("\n".join(lines))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape" if not re.search("[\ud800-\udbff]", text) else "surrogatepass")


def _json(content: bytes, chance: random.Random) -> bytes:
    """A value of a JSON file, or of a line of JSON, is another, lacks, or has another name; else a field is."""
    text = content.decode("utf-8", "surrogateescape")
    lines = [text] if chance.random() < 0.5 else text.split("\n")
    at = chance.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except (ValueError, RecursionError):
        return _fields(content, chance)
    places = list(_places(value))
    if not places:
        return json.dumps(chance.choice(ODD_VALUES)).encode()
    holder, key = chance.choice(places)
    kind = chance.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[chance.choice((str(key) + "x", str(key).upper(), "", "a/../b"))] = holder.pop(key)
    elif kind == 2 and isinstance(holder[key], int | float):
        holder[key] = chance.choice((holder[key] + 1, -holder[key], str(holder[key]), holder[key] * 1.0, [holder[key]]))
    elif kind == 3:
        other, name = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[name] if name in _keys(other) else None))
    else:
        holder[key] = chance.choice(ODD_VALUES)
    lines[at] = json.dumps(value, ensure_ascii=False, indent=chance.choice((None, 1)))
    return _encoded("\n".join(lines))


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def _places(value: Any) -> Any:
    keys = list(_keys(value)) if isinstance(value, dict | list) else []
    for key in keys:
        yield value, key
        yield from _places(value[key])


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_bytes, _bytes, _cut, _whole, _lines, _lines, _fields, _fields, _fields, _json, _json, _json),
)
