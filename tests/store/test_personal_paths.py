"""What is a path is shortened, wherever it stands; what is none stays as it is."""

from __future__ import annotations

import pytest

from statsmerging.store.personal_paths import HiddenPaths


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/data/mini_eight", "…/mini_eight"),
        ("/data/mini_eight/", "…/mini_eight"),
        ("/home/alice/my data/vit (old).safetensors", "…/vit (old).safetensors"),
        ("~/data/vit", "…/vit"),
        ("~alice/data", "…/data"),
        ("/home/alice", "…"),
        ("/Users/alice/", "…"),
        ("~alice/", "…"),
        ("/", "/"),
        (r"C:\Users\alice\data", "…/data"),
        (r"C:\Users\alice", "…"),
        (r"\\server\share\data", "…/data"),
        ("file:///home/alice/x.png", "…/x.png"),
        ("suite.root=/home/alice smith/data", "suite.root=…/data"),
        ("plugins=[/home/alice/a.py,/home/alice/b.py]", "plugins=[…/a.py,…/b.py]"),
        ("--config-dir=~/conf", "--config-dir=…/conf"),
    ],
)
def test_paths_keep_their_last_name(path: str, short: str) -> None:
    hidden = HiddenPaths([])
    assert hidden.in_record({"key": [path, 1, None]}) == {"key": [short, 1, None]}
    assert hidden.in_record({path: True}) == {short: True}


@pytest.mark.parametrize(
    "text",
    [
        "data/mini_eight",
        "../data",
        "mnist/test",
        "images per s / 2",
        "1/2 of them, and/or more",
        "https://example.org/a/b",
        "‖θ − θ₀‖ / ‖θ₀‖",
        "a ~ b",
        "openai/clip-vit-base-patch32",
        "…/data",
        "…2/data",
        "",
    ],
)
def test_what_is_no_absolute_path_stays(text: str) -> None:
    hidden = HiddenPaths([{"root": "/data/mini"}])
    assert hidden.in_record(text) == text
    assert hidden.in_sentences(text) == text


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("'/home/alice/x.png' is damaged", "'…/x.png' is damaged"),
        ("/home/alice/x.png: no such file", "…/x.png: no such file"),
        ("read /srv/a, (/srv/b) and ~/c", "read …/a, (…/b) and …/c"),
        ("below /home/alice smith/data/mnist/1.png, too", "below …/1.png, too"),
        ("in /home/alice smith/data.", "in …/data."),
    ],
)
def test_sentences_with_paths(text: str, short: str) -> None:
    """A path with blanks is known from the config."""
    hidden = HiddenPaths([{"suite": {"root": "/home/alice smith/data"}}])
    assert hidden.in_sentences(text) == short


def test_different_paths_of_configs_stay_different() -> None:
    configs = [{"root": path} for path in ("/b/data", "/a/data", "/b/data", "/c/other")]
    hidden = HiddenPaths(configs)
    assert [hidden.in_record(config)["root"] for config in configs] == [
        "…2/data",
        "…/data",
        "…2/data",
        "…/other",
    ]
    assert hidden.in_record(hidden.in_record(configs)) == hidden.in_record(configs)
