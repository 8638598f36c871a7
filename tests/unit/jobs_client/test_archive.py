"""Code archives: the same bytes everywhere, and nothing in them that should not be."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from jobs.archive import Archive, pack, show_bytes
from jobs.errors import SpecError


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write files by their path."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(archive: Archive) -> list[str]:
    """List an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive.data)) as tar:
        return tar.getnames()


def test_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    """Place, order of writing, times and permission bits beyond "executable" do not matter."""
    one = write(tmp_path / "one", {"train.py": "x", "lib/a.py": "a", "lib/b.py": "b"})
    two = write(tmp_path / "two", {"lib/b.py": "b", "lib/a.py": "a", "train.py": "x"})
    os.utime(two / "train.py", (1, 1))
    (two / "train.py").chmod(0o600)
    assert pack(one).data == pack(two).data
    assert pack(one).sha256 == pack(two).sha256
    assert pack(one).data[4:8] == bytes(4), "gzip's own time"
    with tarfile.open(fileobj=io.BytesIO(pack(one).data)) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "")}


def test_each_difference_gives_another_address(tmp_path: Path) -> None:
    """Content, name and the executable bit all count."""
    folder = write(tmp_path, {"train.py": "x"})
    seen = {pack(folder).sha256}
    (folder / "train.py").chmod(0o755)
    seen.add(pack(folder).sha256)
    (folder / "train.py").write_text("y")
    seen.add(pack(folder).sha256)
    (folder / "train.py").rename(folder / "other.py")
    seen.add(pack(folder).sha256)
    assert len(seen) == 4


def test_it_unpacks_to_what_was_packed(tmp_path: Path) -> None:
    """The archive passes Python's own filter against hostile archives."""
    folder = write(tmp_path / "in", {"train.py": "x", "lib/a.py": "a"})
    (folder / "link.py").symlink_to("lib/a.py")
    with tarfile.open(fileobj=io.BytesIO(pack(folder).data)) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out/train.py").read_text() == "x"
    assert (tmp_path / "out/link.py").read_text() == "a"


def test_gitignore_is_honoured_like_git_does(tmp_path: Path) -> None:
    """Nested files, negation, anchors, and folders that cannot be re-included."""
    folder = write(
        tmp_path,
        {
            ".gitignore": "*.pt\ndata/\n/only_top.txt\n",
            "train.py": "",
            "model.pt": "",
            "keep/.gitignore": "!best.pt\n",
            "keep/best.pt": "",
            "keep/worst.pt": "",
            "data/.gitignore": "!sample.csv\n",
            "data/sample.csv": "",
            "only_top.txt": "",
            "keep/only_top.txt": "",
        },
    )
    assert names(pack(folder)) == [
        ".gitignore",
        "keep/.gitignore",
        "keep/best.pt",
        "keep/only_top.txt",
        "train.py",
    ]


def test_rules_of_the_repository_above_count(tmp_path: Path) -> None:
    """A script in a subfolder is packed by the rules of its whole repository, and no further."""
    write(
        tmp_path,
        {
            ".gitignore": "*.py\n",
            "repo/.git/HEAD": "",
            "repo/.gitignore": "*.log\n",
            "repo/src/train.py": "",
            "repo/src/old.log": "",
        },
    )
    assert names(pack(tmp_path / "repo/src")) == ["train.py"]


def test_what_is_never_code_stays_out(tmp_path: Path) -> None:
    """Git's store, caches and virtual environments of any name."""
    folder = write(
        tmp_path,
        {
            ".git/config": "",
            ".venv/bin/python": "",
            "my-env/pyvenv.cfg": "",
            "my-env/lib/x.py": "",
            "lib/__pycache__/a.pyc": "",
            "train.py": "",
        },
    )
    assert names(pack(folder)) == ["train.py"]


def test_too_much_is_refused_with_the_three_biggest(tmp_path: Path) -> None:
    """The reader learns the size, the limit and where the bytes are."""
    sizes = {"a.bin": 3_000, "b.bin": 5_000, "c.bin": 4_000, "train.py": 10}
    folder = write(tmp_path, {name: "x" * size for name, size in sizes.items()})
    with pytest.raises(SpecError) as caught:
        pack(folder, max_bytes=12_009)
    assert "b.bin (4.9 KiB), c.bin (3.9 KiB), a.bin (2.9 KiB)" in caught.value.cause
    assert "11.7 KiB" in caught.value.cause
    assert "train.py" not in caught.value.cause
    assert ".gitignore" in caught.value.remedy
    assert pack(folder, max_bytes=12_010).unpacked_bytes == 12_010


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    """A home folder is not read to its end."""
    folder = write(tmp_path, {f"{n}.txt": "" for n in range(4)})
    with pytest.raises(SpecError, match="more than 3 files"):
        pack(folder, max_files=3)


@pytest.mark.parametrize("target", ["../secret.txt", "/etc/hostname", "sub/../../secret.txt"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, target: str) -> None:
    """A link neither smuggles a file in nor breaks on another machine."""
    write(tmp_path, {"secret.txt": "s", "in/sub/x.py": ""})
    (tmp_path / "in/link").symlink_to(target)
    with pytest.raises(SpecError) as caught:
        pack(tmp_path / "in")
    assert "'link' is a link" in caught.value.cause
    assert ".gitignore" in caught.value.remedy


def test_a_link_through_a_link_does_not_get_out(tmp_path: Path) -> None:
    """Where a chain of links ends is what counts."""
    write(tmp_path, {"outside/x.py": "", "in/a.py": ""})
    (tmp_path / "in/dir").symlink_to(tmp_path / "outside")
    with pytest.raises(SpecError, match="outside the code folder"):
        pack(tmp_path / "in")


def test_a_link_through_an_ignored_link_does_not_get_out(tmp_path: Path) -> None:
    """The way looks as if it stayed inside, but it does not end there."""
    write(tmp_path, {"outside/x.py": "", "in/.gitignore": "data\n"})
    (tmp_path / "in/data").symlink_to(tmp_path / "outside")
    (tmp_path / "in/link.py").symlink_to("data/x.py")
    with pytest.raises(SpecError, match=r"'link\.py' is a link"):
        pack(tmp_path / "in")


def test_an_ignored_link_may_lead_anywhere(tmp_path: Path) -> None:
    """`data -> /mnt/data` in .gitignore is a habit, no fault."""
    folder = write(tmp_path, {".gitignore": "data\n", "train.py": ""})
    (folder / "data").symlink_to("/")
    assert names(pack(folder)) == [".gitignore", "train.py"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The remedy says which option."""
    with pytest.raises(SpecError) as caught:
        pack(tmp_path / "nowhere")
    assert "--code-dir" in caught.value.remedy


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (3 << 30, "3.0 GiB")]
)
def test_sizes_read_well(count: int, text: str) -> None:
    """Binary units, one decimal."""
    assert show_bytes(count) == text
