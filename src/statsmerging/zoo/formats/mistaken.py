"""What people save as weights by mistake: pointers, web pages, error messages, other formats."""

from __future__ import annotations

from pathlib import Path

from statsmerging.errors import UserError, printable, shown

#: Bytes that tell what a file is.
_BEGINNING = 512

_ARCHIVE = b"PK\x03\x04"

# How a file begins → what it is, and what to do.
_KINDS = {
    b"version https://git-lfs.github.com/": (
        "a Git LFS pointer, not the weights themselves: `git lfs pull` fetches them"
    ),
    b"GGUF": "a GGUF file, whose weights are quantised: take those it was made from",
    b"\x89HDF": "an HDF5 file of Keras: take the weights for PyTorch",
}


def check_weights_file(path: Path, *, archive: bool) -> None:
    """Say what a file is that holds no weights, or not in the format of its name.

    Args:
        path: a file that is about to be read as weights.
        archive: it should be an archive of torch.save, not safetensors.

    Raises:
        UserError: no file, an empty one, or one of another kind; one line that says which.
    """
    where = printable(str(path))
    if path.is_dir():
        raise UserError(f"{where} is a folder, not a file of weights")
    if not path.is_file():
        raise UserError(f"{where}: no such file")
    with path.open("rb") as stream:
        head = stream.read(_BEGINNING)
    if not head:
        raise UserError(f"{where} is empty: the copy or the download was cut, get it again")
    if head.startswith(_ARCHIVE) != archive:
        if not archive:
            raise UserError(f"{where} is an archive as torch.save writes it: name it .pt")
        if head[8:9] == b"{" and b"\0" in head[:8]:
            raise UserError(f"{where} is a safetensors file: name it .safetensors")
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            raise UserError(f"{where} is {kind}")
    if _is_text(head):
        raise UserError(f"{where} is {_kind_of_text(head)}")


def _is_text(head: bytes) -> bool:
    # The header length of safetensors and the entries of an archive hold zero bytes.
    return b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)


def _kind_of_text(head: bytes) -> str:
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if text[:9].lower() == "<!doctype" or text[:5].lower() == "<html":
        return "an HTML page, not weights: its address wants a login, or is that of a page"
    kind = "a JSON text" if text[:1] in ("{", "[") else "a text"
    return f"{kind}, not weights; it begins {shown(' '.join(text[:60].split()))}"
