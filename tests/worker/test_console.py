"""What reaches the terminal."""

import pytest

from worker.console import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("models/imdb: model.safetensors is missing", "models/imdb: model.safetensors is missing"),
        ("größer als 5 €, 日本", "größer als 5 €, 日本"),
        ("a\nerror: forged", "a\\nerror: forged"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\u202eright to left", "\\u202eright to left"),
    ],
)
def test_a_name_out_of_a_file_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown
