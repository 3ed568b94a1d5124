"""The catalogue: what publishers put on a topic by mistake or on purpose, each with what must become of it; and a
generator of more. A record's secret is the word `MARK`: it stands in every key, in headers, and in the value wherever
there is room for it, and in nothing that the worker itself says."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from schemas import Reason
from worker.message import Headers, Message

MARK = "xyzzy"
LIMIT = 1_000_000
"""`max_message_bytes` here: not the default, so that the route must have been told."""

Outcome = Reason | Literal["scored"]


@dataclass(frozen=True)
class Hostile:
    """A record as its publisher sends it, and its outcome: None where one has to look at it."""

    value: bytes | None
    expected: Outcome | None
    key: bytes | None = MARK.encode()
    headers: Headers = field(default=((f"x-{MARK}", MARK.encode()),))
    timestamp_ms: int | None = None
    """None is now."""

    @property
    def message(self) -> Message:
        """As the source gives it."""
        time = -1 if self.timestamp_ms is None else self.timestamp_ms
        return Message("reviews", 3, 4211, self.key, self.value, self.headers, time)


def review(**fields: object) -> bytes:
    """A review with these fields over its own."""
    content = {"review_id": MARK, "text": f"the movie was {MARK}"} | fields
    return json.dumps(content, ensure_ascii=False).encode()


def with_raw(name: str, content: bytes) -> bytes:
    """A review and a field more, whose value is written as it stands."""
    return review()[:-1] + b', "' + name.encode() + b'": ' + content + b"}"


def text_of(content: bytes) -> bytes:
    """A review whose text is written as it stands."""
    return b'{"review_id": "xyzzy", "text": "' + content + b'"}'


def filled(size: int) -> bytes:
    """A review of exactly so many bytes."""
    return review(note="y" * (size - len(review(note=""))))


def grown(character: str) -> str:
    """The longest text, of one thing over and over."""
    return (character * 100_000)[:100_000]


GOOD = review()
MARKED = MARK.encode()

BYTES: dict[str, tuple[bytes | None, Outcome]] = {
    "null": (None, Reason.TOMBSTONE),
    "no bytes": (b"", Reason.EMPTY),
    "spaces": (b" \r\n\t ", Reason.EMPTY),
    "tabulators no JSON knows": (b"\x0b\x0c", Reason.EMPTY),
    "a space of another script": ("\u00a0".encode(), Reason.NOT_JSON),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, Reason.NOT_JSON),
    "byte order mark alone": (b"\xef\xbb\xbf", Reason.NOT_JSON),
    "UTF-16": (GOOD.decode().encode("utf-16"), Reason.NOT_UTF8),
    "UTF-16, little end first": (GOOD.decode().encode("utf-16-le"), Reason.NOT_JSON),
    "UTF-32": (GOOD.decode().encode("utf-32"), Reason.NOT_UTF8),
    "Latin-1": (review(text="caf\u00e9").decode().encode("latin-1"), Reason.NOT_UTF8),
    "overlong slash": (text_of(b"\xc0\xaf"), Reason.NOT_UTF8),
    "overlong NUL": (text_of(b"\xc0\x80"), Reason.NOT_UTF8),
    "overlong in three bytes": (text_of(b"\xe0\x80\xaf"), Reason.NOT_UTF8),
    "surrogate encoded": (text_of(b"\xed\xa0\x80"), Reason.NOT_UTF8),
    "two surrogates encoded": (text_of(b"\xed\xa0\xbd\xed\xb8\x80"), Reason.NOT_UTF8),
    "sequence cut by a quote": (text_of(b"good \xe2\x82"), Reason.NOT_UTF8),
    "sequence cut by the end": (GOOD + b"\xe2\x82", Reason.NOT_UTF8),
    "middle of a sequence": (text_of(b"\x80good"), Reason.NOT_UTF8),
    "beyond Unicode": (text_of(b"\xf4\x90\x80\x80"), Reason.NOT_UTF8),
    "five bytes for a character": (text_of(b"\xf8\x88\x80\x80\x80"), Reason.NOT_UTF8),
    "bad byte where nobody reads": (with_raw("note", b'"\xff"'), Reason.NOT_UTF8),
    "bad byte after the end": (GOOD + b"\xff", Reason.NOT_UTF8),
    "registry's frame": (b"\x00\x00\x00\x00\x07" + GOOD, Reason.CONFLUENT_FRAMED),
    "registry's frame of Avro": (b"\x00\x00\x00\x00\x07\x0axyzzy\x08good", Reason.CONFLUENT_FRAMED),
    "registry's frame by GUID": (b"\x01" + bytes(range(0x70, 0x80)) + GOOD, Reason.CONFLUENT_FRAMED),
    "registry's frame by a GUID that is no UTF-8": (
        b"\x01" + bytes(range(0xF0, 0x100)) + GOOD,
        Reason.CONFLUENT_FRAMED,
    ),
    "NUL bytes": (b"\x00" * 40, Reason.CONFLUENT_FRAMED),
    "UTF-16, big end first": (GOOD.decode().encode("utf-16-be"), Reason.CONFLUENT_FRAMED),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + MARKED, Reason.NOT_UTF8),
    "zstd": (b"\x28\xb5\x2f\xfd" + MARKED, Reason.NOT_UTF8),
    "zip": (b"PK\x03\x04" + MARKED, Reason.NOT_JSON),
    "MessagePack": (b"\x82\xa9review_id\xa5xyzzy\xa4text\xa4good", Reason.NOT_UTF8),
    "CBOR": (b"\xa2ireview_idexyzzydtextdgood", Reason.NOT_UTF8),
    "Protocol Buffers": (b"\n\x05xyzzy\x12\x04good", Reason.NOT_JSON),
    "Avro": (b"\x0axyzzy\x08good", Reason.NOT_JSON),
    "Avro file": (b"Obj\x01\x04\x14avro.codec\x08null" + MARKED, Reason.NOT_JSON),
    "pickle": (b"\x80\x04\x95\x09\x00\x00\x00\x00\x00\x00\x00\x8c\x05xyzzy\x94.", Reason.NOT_UTF8),
    "Java object": (b"\xac\xed\x00\x05t\x00\x05xyzzy", Reason.NOT_UTF8),
}
"""What is no text, or no UTF-8."""

SYNTAX: dict[str, tuple[bytes | None, Outcome]] = {
    "words": (b"five stars, xyzzy", Reason.NOT_JSON),
    "CSV": (b"xyzzy,good", Reason.NOT_JSON),
    "XML": (b"<review>xyzzy</review>", Reason.NOT_JSON),
    "YAML": (b"review_id: xyzzy\ntext: good\n", Reason.NOT_JSON),
    "cut in the text": (GOOD[:-4], Reason.NOT_JSON),
    "cut before the last bracket": (GOOD[:-1], Reason.NOT_JSON),
    "one bracket": (b"{", Reason.NOT_JSON),
    "comment in a line": (b"// xyzzy\n" + GOOD, Reason.NOT_JSON),
    "comment inside": (GOOD[:-1] + b"/* xyzzy */}", Reason.NOT_JSON),
    "comment of a shell": (b"# xyzzy\n" + GOOD, Reason.NOT_JSON),
    "single quotes": (GOOD.replace(b'"', b"'"), Reason.NOT_JSON),
    "names without quotes": (b'{review_id: "xyzzy", text: "good"}', Reason.NOT_JSON),
    "comma before the end": (GOOD[:-1] + b",}", Reason.NOT_JSON),
    "no comma": (b'{"review_id": "xyzzy" "text": "good"}', Reason.NOT_JSON),
    "letter after the end": (GOOD + b"x", Reason.NOT_JSON),
    "NUL after the end": (GOOD + b"\x00", Reason.NOT_JSON),
    "two in one": (GOOD + GOOD, Reason.NOT_JSON),
    "two lines": (GOOD + b"\n" + GOOD, Reason.NOT_JSON),
    "separator of JSON sequences": (b"\x1e" + GOOD, Reason.NOT_JSON),
    "line end after the end": (GOOD + b"\r\n", "scored"),
    "escape that does not exist": (text_of(b"\\x41"), Reason.NOT_JSON),
    "escape cut": (text_of(b"\\u12"), Reason.NOT_JSON),
    "first surrogate alone": (text_of(b"\\ud800"), Reason.NOT_JSON),
    "second surrogate alone": (text_of(b"\\udc00 good"), Reason.NOT_JSON),
    "surrogates the wrong way round": (text_of(b"\\udfac\\ud83c"), Reason.NOT_JSON),
    "surrogate in the id": (b'{"review_id": "\\ud800", "text": "xyzzy"}', Reason.NOT_JSON),
    "surrogate in a name": (with_raw("\\ud800", b"1"), Reason.NOT_JSON),
    "surrogate where nobody reads": (with_raw("note", b'"\\ud800"'), Reason.NOT_JSON),
    "surrogates in order": (text_of(b"\\ud83c\\udfac"), "scored"),
    "names escaped": (b'{"\\u0072eview_id": "xyzzy", "\\u0074ext": "good"}', "scored"),
    "200 lists": (with_raw("deep", b"[" * 200 + b"]" * 200), "scored"),
    "300 lists": (with_raw("deep", b"[" * 300 + b"]" * 300), Reason.NOT_JSON),
    "300 objects": (with_raw("deep", b'{"xyzzy":' * 300 + b"1" + b"}" * 300), Reason.NOT_JSON),
    "100,000 lists": (with_raw("deep", b"[" * 100_000 + b"]" * 100_000), Reason.NOT_JSON),
    "100,000 lists that never end": (b"[" * 100_000, Reason.NOT_JSON),
    "100,000 objects that never end": (b'{"text":' * 100_000, Reason.NOT_JSON),
    "number of 10,000 digits": (with_raw("note", b"9" * 10_000), Reason.NOT_JSON),
    "number of 10,000 digits below zero": (with_raw("note", b"-" + b"9" * 10_000), Reason.NOT_JSON),
    "number of 10,000 digits as id": (b'{"review_id": ' + b"9" * 10_000 + b', "text": "xyzzy"}', Reason.NOT_JSON),
    "fraction of 10,000 digits": (with_raw("note", b"0." + b"9" * 10_000), "scored"),
    "number beyond any": (with_raw("note", b"1e999999999"), "scored"),
    "NaN where nobody reads": (with_raw("note", b"NaN"), "scored"),
    "Infinity where nobody reads": (with_raw("note", b"-Infinity"), "scored"),
    "number that begins with 0": (with_raw("note", b"017"), Reason.NOT_JSON),
    "hexadecimal number": (with_raw("note", b"0x1F"), Reason.NOT_JSON),
    **{
        f"U+{number:04X} as it is in the text": (text_of(b"go" + bytes([number]) + b"od"), Reason.NOT_JSON)
        for number in range(0x20)
    },
}
"""What is no JSON, and what looks like none."""

SHAPE: dict[str, tuple[bytes | None, Outcome]] = {
    "list": (b'["xyzzy"]', Reason.NOT_AN_OBJECT),
    "review in a list": (b"[" + GOOD + b"]", Reason.NOT_AN_OBJECT),
    "review in a string": (json.dumps(GOOD.decode()).encode(), Reason.NOT_AN_OBJECT),
    "string": (b'"xyzzy"', Reason.NOT_AN_OBJECT),
    "number": (b"-0", Reason.NOT_AN_OBJECT),
    "NaN": (b"NaN", Reason.NOT_AN_OBJECT),
    "true": (b"true", Reason.NOT_AN_OBJECT),
    "the word null": (b"null", Reason.NOT_AN_OBJECT),
    "nothing in it": (b"{}", Reason.MISSING_FIELD),
    "no id": (b'{"text": "xyzzy"}', Reason.MISSING_FIELD),
    "no text": (b'{"review_id": "xyzzy"}', Reason.MISSING_FIELD),
    "names in capitals": (b'{"Review_Id": "xyzzy", "TEXT": "good"}', Reason.MISSING_FIELD),
    "review one level down": (b'{"value": ' + GOOD + b"}", Reason.MISSING_FIELD),
    **{
        f"{name} is {kind}": (review(**{name: wrong}), Reason.WRONG_TYPE)
        for name in ("review_id", "text")
        for kind, wrong in {
            "a number": 17,
            "a fraction": 0.5,
            "true": True,
            "null": None,
            "a list": [MARK],
            "an object": {"$ne": MARK},
        }.items()
    },
    "text is NaN": (b'{"review_id": "xyzzy", "text": NaN}', Reason.WRONG_TYPE),
    "id is Infinity": (b'{"review_id": Infinity, "text": "xyzzy"}', Reason.WRONG_TYPE),
    "unknown fields": (review(rating=5, tags=[MARK], nested={"text": 3}, nothing=None), "scored"),
    "names that mean something elsewhere": (review(__proto__={}, __class__=MARK, model_config={}), "scored"),
    "a name without a letter": (with_raw("", b"1"), "scored"),
    "40,000 unknown fields": (review(**{f"{MARK}{number}": number for number in range(40_000)}), "scored"),
    "unknown field of 950 kB": (review(note=MARK * 190_000), "scored"),
    "text twice": (with_raw("text", b'"the last one counts"'), "scored"),
    "text twice, first at fault": (b'{"review_id": "xyzzy", "text": 5, "text": "good"}', "scored"),
    "text twice, last at fault": (with_raw("text", b"5"), Reason.WRONG_TYPE),
    "text twice, once escaped": (with_raw("\\u0074ext", b"5"), Reason.WRONG_TYPE),
    "id twice, last at fault": (with_raw("review_id", b'""'), Reason.OUT_OF_BOUNDS),
}
"""JSON that is no review, and reviews with more than is asked for."""

CONTROLS = [*range(0x20), 0x7F, *range(0x80, 0xA0)]
EVERY_CONTROL = "".join(map(chr, CONTROLS))

BOUNDS: dict[str, tuple[bytes | None, Outcome]] = {
    "id of no character": (review(review_id=""), Reason.OUT_OF_BOUNDS),
    "id of 1": (review(review_id="a"), "scored"),
    "id of 128": (review(review_id="a" * 128), "scored"),
    "id of 129": (review(review_id="a" * 129), Reason.OUT_OF_BOUNDS),
    "id of 128 beyond the first plane": (review(review_id="\U0001f3ac" * 128), "scored"),
    "id of 129 beyond the first plane": (review(review_id="\U0001f3ac" * 129), Reason.OUT_OF_BOUNDS),
    "id of 64 letters with accents of their own": (review(review_id="e\u0301" * 64), "scored"),
    "id of 900,000": (review(review_id="a" * 900_000), Reason.OUT_OF_BOUNDS),
    "id of a space": (review(review_id=" "), "scored"),
    "id of a path": (review(review_id="../../etc/passwd"), "scored"),
    "id of SQL": (review(review_id="'; DROP TABLE reviews; --"), "scored"),
    "id from right to left": (review(review_id="\u202e" + MARK), "scored"),
    "id that cannot be seen": (review(review_id="\u200b\u2060"), "scored"),
    "id over two lines of Unicode's": (review(review_id="a\u2028b\u2029c"), "scored"),
    **{
        f"U+{number:04X} in the id": (review(review_id=f"{MARK}{chr(number)}b"), Reason.OUT_OF_BOUNDS)
        for number in CONTROLS
    },
    "text of no character": (review(text=""), Reason.OUT_OF_BOUNDS),
    "text of 1": (review(text="a"), "scored"),
    "text of 100,000": (review(text=grown("good ")), "scored"),
    "text of 100,001": (review(text="a" * 100_001), Reason.OUT_OF_BOUNDS),
    "text of 100,000 beyond the first plane": (review(text="\U0001f3ac" * 100_000), "scored"),
    "text of 100,001 beyond the first plane": (review(text="\U0001f3ac" * 100_001), Reason.OUT_OF_BOUNDS),
    "text of 100,000 beyond the first plane, escaped": (
        json.dumps({"review_id": MARK, "text": "\U0001f3ac" * 100_000}).encode(),
        Reason.TOO_LARGE,
    ),
    "text of spaces": (review(text=" \n\t\u00a0\u1680\u2003\u2028\u3000"), Reason.OUT_OF_BOUNDS),
    "text of control characters": (review(text=EVERY_CONTROL), Reason.OUT_OF_BOUNDS),
    "text of spaces and control characters": (review(text=f" {EVERY_CONTROL} "), Reason.OUT_OF_BOUNDS),
    "control characters in the text": (review(text=f"{EVERY_CONTROL}good{EVERY_CONTROL}"), "scored"),
    "colours of a terminal": (review(text="\x1b[31mgood\x1b]0;xyzzy\x07"), "scored"),
    "C1 as it is in the text": (text_of("go\u009bod".encode()), "scored"),
    "value of exactly the limit": (filled(LIMIT), "scored"),
    "value of a byte more": (filled(LIMIT + 1), Reason.TOO_LARGE),
    "value of 2.5 MB": (filled(2_500_000), Reason.TOO_LARGE),
    "value of 2.5 MB that is nothing": (b"\x00" * 2_500_000, Reason.TOO_LARGE),
}
"""At the bounds of what is accepted and beyond; control characters are refused in an id and data in a text."""

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
TEXTS: dict[str, str] = {
    "markup": "<script>alert('xyzzy')</script><br/><img src=x onerror=xyzzy()>",
    "the model's own words": "[CLS] good [SEP] bad [MASK] [PAD] [UNK] [CLS][SEP]",
    "the model's own words, hidden": "[\u200bSEP] [SE\x00P] [sep] [ MASK ] [SEP\u0301] ##good [unused1]",
    "template": "{{7*7}} ${jndi:ldap://127.0.0.1/xyzzy} %s %n {0}",
    "line that looks like a log's": 'good\n{"level": "critical", "event": "xyzzy"}',
    "line that looks like a metric": 'good\nreview_worker_ready{xyzzy="1"} 0',
    "from right to left and back": "\u202egood\u202c \u2066bad\u2069 \u200fxyzzy\u200e \u061c",
    "override that never ends": "\u202e" * 1_000 + MARK,
    "no width": "\u200b\u200c\u200d\u2060\ufeff",
    "no width among letters": "g\u200bo\u200do\u2060d\ufeff",
    "soft hyphens": "\u00ad" * 100,
    "fillers that look like nothing": "\u3164\u115f\u2800\u180e",
    "tags": "".join(chr(0xE0000 + ord(letter)) for letter in MARK),
    "accents alone": "\u0301" * 100,
    "characters of nobody": "\ue000\U000f0000\U0010fffd",
    "no characters": "\ufdd0\ufffe\uffff\U0010ffff",
    "replacement characters": "\ufffd" * 10,
    "100,000: one word": grown("a"),
    "100,000: one word of digits": grown("0123456789"),
    "100,000: letters and spaces": grown("a "),
    "100,000: brackets": grown("["),
    "100,000: punctuation": grown("!?.,"),
    "100,000: points": grown("."),
    "100,000: break that never ends": grown("<br"),
    "100,000: break of spaces": ("<br" + " " * 100_000)[:100_000],
    "100,000: backslashes": grown("\\"),
    "100,000: line ends": "good" + "\r\n" * 49_998,
    "100,000: control words": grown("[SEP] "),
    "100,000: accents on one letter": "e" + "\u0301" * 99_999,
    "100,000: accents of every kind": grown("z" + "".join(map(chr, range(0x300, 0x370)))),
    "100,000: no width": grown("\u200b"),
    "100,000: right to left": grown("\u202egood\u202c"),
    "100,000: a letter that becomes two": grown("\u0130"),
    "100,000: a character that becomes 18": grown("\ufdfa"),
    "100,000: Chinese": grown("\u4e2d\u6587\u8bc4\u8bba"),
    "100,000: Japanese": grown("\u6620\u753b\u306f\u7d20\u6674\u3089\u3057\u3044 "),
    "100,000: Korean": grown("\uc601\ud654\uac00 \uc88b\ub2e4 "),
    "100,000: Korean, letter by letter": grown("\u110b\u1167\u11bc"),
    "100,000: Arabic": grown("\u0627\u0644\u0641\u064a\u0644\u0645\u064f \u0631\u0627\u0626\u0639\u064c "),
    "100,000: Hebrew with points": grown("\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd "),
    "100,000: Hindi": grown("\u092b\u093f\u0932\u094d\u092e "),
    "100,000: Thai, which has no spaces": grown("\u0e2b\u0e19\u0e31\u0e07\u0e14\u0e35"),
    "100,000: Tibetan": grown("\u0f56\u0f62\u0f92\u0fb1\u0f51"),
    "100,000: Russian": grown("\u0424\u0438\u043b\u044c\u043c \u0445\u043e\u0440\u043e\u0448 "),
    "100,000: Vietnamese": grown("Phim r\u1ea5t hay "),
    "100,000: cuneiform": grown("\U00012000\U00012157 "),
    "100,000: letters of mathematics": grown("\U0001d4d0\U0001d4d1"),
    "100,000: families": grown(FAMILY),
    "100,000: flags": grown("\U0001f1e9\U0001f1ea"),
}
"""Data, whatever they look like: each is scored."""

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OURS = (
    "rejection.reason",
    "__connect.errors.topic",
    "__connect.errors.partition",
    "__connect.errors.offset",
    "__connect.errors.exception.message",
    "ce_id",
    "ce_source",
    "ce_type",
    "content-type",
    "replay.hops",
)
"""Names of headers that somebody trusts to be the worker's."""

HEADERS: dict[str, Headers] = {
    "no value": (("traceparent", None), (MARK, None), ("rejection.reason", None)),
    "empty value": (("traceparent", b""), (MARK, b"")),
    "no name": (("", MARKED), ("", None)),
    "value that is no text": ((MARK, b"\xff\xfe\x00xyzzy"), ("traceparent", b"\xff")),
    "name of every script": (("\u8bc4\u8bba\U0001f3ac\u202e", MARKED), ("a b\r\nc: d", MARKED)),
    "10,000 of them": tuple((f"{MARK}-{number}", MARKED) for number in range(10_000)),
    "value of 100 kB": ((MARK, MARKED * 20_000), ("traceparent", b"0" * 100_000)),
    "names of ours": tuple((name, b"forged " + MARKED) for name in OURS),
    "names of ours, twice": tuple((name, b"%d" % number) for name in OURS for number in (1, 2)),
    "a trace": (("traceparent", TRACE), ("tracestate", MARKED)),
    "two traces": (("traceparent", TRACE), ("traceparent", TRACE[:-1] + b"0")),
    "a trace after one that is none": (("traceparent", MARKED), ("traceparent", TRACE)),
    "a trace and a line more": (("traceparent", TRACE + b"\r\nset-cookie: xyzzy"),),
    "a trace in capitals": (("Traceparent", TRACE), ("traceparent", TRACE.upper())),
}
KEYS: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "1 kB of every byte": bytes(range(256)) * 4,
    "30 kB": MARKED * 6_000,
    "NUL": b"\x00",
    "line ends": b"xyzzy\r\n{}",
}
TIMES: dict[str, int] = {"1970": 0, "never": -1, "far ahead": 253_402_300_800_000, "end of time": (1 << 63) - 1}

ENVELOPES = {
    **{f"headers: {name}": {"headers": headers} for name, headers in HEADERS.items()},
    **{f"key: {name}": {"key": key} for name, key in KEYS.items()},
    **{f"time: {name}": {"timestamp_ms": time} for name, time in TIMES.items()},
}
"""What stands around a value: each with a review, with something else, and with nothing."""

VALUES = BYTES | SYNTAX | SHAPE | BOUNDS

CATALOGUE: dict[str, Hostile] = {
    **{name: Hostile(value, expected) for name, (value, expected) in VALUES.items()},
    **{f"text: {name}": Hostile(review(text=text), "scored") for name, text in TEXTS.items()},
    **{f"{name}, scored": Hostile(GOOD, "scored", **parts) for name, parts in ENVELOPES.items()},
    **{f"{name}, at fault": Hostile(b"not JSON: xyzzy", Reason.NOT_JSON, **parts) for name, parts in ENVELOPES.items()},
    **{f"{name}, null": Hostile(None, Reason.TOMBSTONE, **parts) for name, parts in ENVELOPES.items()},
    "key of 100 kB": Hostile(GOOD, Reason.TOO_LARGE, key=MARKED * 20_000),
    "key of 1 MB": Hostile(GOOD, Reason.TOO_LARGE, key=MARKED * 200_000),
}
"""Name -> record; the name is what a failing test shows."""

PIECES = (
    b"\x00",
    b"\x01",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b'"',
    b"\\",
    b"{",
    b"[",
    b"}",
    b",",
    b"NaN",
    b"null",
    b"\\ud800",
    b"\\u0000",
    b"1e999",
    b"9" * 5_000,
    b"[" * 250,
    b' "text": 5,',
    b' "review_id": "", ',
    "\u202e\u200b\U0001f3ac".encode(),
    "\u009b".encode(),
    GOOD,
)
"""What a reader of JSON may stumble over, wherever it stands."""


def mutated(value: bytes, dice: random.Random) -> bytes:
    """The value after one to four accidents: a bit turned, a piece lost, doubled or put in, two halves swapped."""
    for _ in range(dice.randint(1, 4)):
        start = dice.randint(0, len(value))
        end = min(len(value), start + dice.randint(0, 20))
        accident = dice.randrange(6)
        if accident == 0 and value:
            place = dice.randrange(len(value))
            value = value[:place] + bytes([value[place] ^ 1 << dice.randrange(8)]) + value[place + 1 :]
        elif accident == 1:
            value = value[:start]
        elif accident == 2:
            value = value[:start] + value[end:]
        elif accident == 3:
            value = value[:end] + value[start:]
        elif accident == 4:
            value = value[start:] + value[:start]
        else:
            value = value[:start] + dice.choice(PIECES) + value[end:]
    return value


FIELDS = (
    "",
    "a",
    MARK,
    "a" * 129,
    " ",
    "\x00",
    "\u202e",
    "[SEP]",
    0,
    -1,
    0.5,
    math.nan,
    None,
    True,
    [],
    [MARK],
    {"text": 1},
)
"""Of a review by somebody who has never read the contract."""


def strange(dice: random.Random) -> bytes:
    """JSON that is nearly a review."""
    names = [name for name in ("review_id", "text", "note") if dice.random() < 0.9]
    return json.dumps({name: dice.choice(FIELDS) for name in names}).encode()


def fuzzed(count: int, seed: int) -> list[Hostile]:
    """Junk, strange reviews and good ones after accidents; the same records for the same seed."""
    dice = random.Random(seed)  # noqa: S311 - accidents, not secrets
    names: Sequence[str] = (*OURS, "traceparent", MARK, "")
    values = (None, b"", b"\xff", MARKED, TRACE)
    makers = (lambda: dice.randbytes(dice.randint(0, 60)), lambda: strange(dice), lambda: mutated(GOOD, dice))
    return [
        Hostile(
            dice.choices(makers, (1, 3, 6))[0](),
            None,
            key=dice.choice((None, b"", MARKED, dice.randbytes(8))),
            headers=tuple((dice.choice(names), dice.choice(values)) for _ in range(dice.choice((0, 0, 1, 5)))),
        )
        for _ in range(count)
    ]
