"""Images in tar files."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.files import png, write_tar
from unnoise.data.fit import Fit
from unnoise.data.tar import TarShards, expand
from unnoise.utils.errors import UserError


def grey(k: int) -> bytes:
    return png(np.full((8, 8, 3), k, dtype=np.uint8))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Four of three images each, whose pixels are 10 s + k and whose labels are k; gives their folder."""
    for s in range(4):
        members = [(f"{s}{k}.png", grey(10 * s + k)) for k in range(3)] + [(f"{s}{k}.cls", str(k).encode()) for k in range(3)]
        write_tar(tmp_path / f"t-{s:03d}.tar", members)
    return tmp_path


def test_images_in_order_with_labels(shards: Path) -> None:
    images = TarShards(str(shards / "t-{000..003}.tar")).read(Fit())
    assert [int(p[0, 0, 0]) for p in images.pixels] == [10 * s + k for s in range(4) for k in range(3)]
    assert images.labels is not None and list(images.labels) == [0, 1, 2] * 4 and images.classes == ("0", "1", "2")
    with pytest.raises(UserError, match=r"no file '.*t-004"):
        TarShards(str(shards / "t-{000..004}.tar")).read(Fit())


def test_splits_share_the_shards(shards: Path) -> None:
    pattern = str(shards / "t-{000..003}.tar")
    whole = TarShards(pattern).read(Fit()).pixels[:, 0, 0, 0]
    found = [TarShards(pattern, split=k, splits=2).read(Fit()).pixels[:, 0, 0, 0] for k in range(2)]
    assert sorted(np.concatenate(found).tolist()) == sorted(whole.tolist())
    with pytest.raises(UserError, match="can't be split 5 ways"):
        TarShards(pattern, split=0, splits=5).read(Fit())
    with pytest.raises(UserError, match="from 0 to 1, not 2"):
        TarShards(pattern, split=2, splits=2)


def test_names_that_reach_outside_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is too large or no file is named."""
    monkeypatch.setattr("unnoise.data.tar.MAX_BYTES", 5000)
    outside = [("../../outside.png", grey(1)), ("/etc/absolute.png", grey(2))]
    write_tar(tmp_path / "bad.tar", [*outside, ("huge.png", bytes(6000)), ("c.png", b"?"), ("x.pkl", b"cos\nsystem\n.")])
    with tarfile.open(tmp_path / "bad.tar", "a") as file:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    bad = TarShards(str(tmp_path / "bad.tar")).read(Fit())
    assert len(bad) == 2 and len(bad.skipped) == 3
    for words in ("huge.png': larger than", "link.png': not a file", "c.png': cannot identify"):
        assert any(words in reason for reason in bad.skipped), bad.skipped
    assert not (tmp_path.parent.parent / "outside.png").exists() and not Path("/etc/absolute.png").exists()


def test_a_shard_that_is_cut_short(shards: Path) -> None:
    (shards / "cut.tar").write_bytes((shards / "t-000.tar").read_bytes()[:1600])
    cut = TarShards(str(shards / "cut.tar")).read(Fit())
    assert len(cut) == 2 and any("can't be read (further)" in reason for reason in cut.skipped), cut.skipped


def test_patterns(tmp_path: Path) -> None:
    (tmp_path / "x-000.tar").write_bytes(b"")
    assert [p.name for p in expand("a-{08..11}.tar")] == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert [p.name for p in expand(str(tmp_path / "x-*.tar"))] == ["x-000.tar"]
    with pytest.raises(UserError, match="stands for more than 100,000 files"):
        expand("x-{0..99999999}.tar")


def test_captions_are_no_classes(tmp_path: Path) -> None:
    members = [(f"{k:03d}.png", grey(k)) for k in range(60)] + [
        (f"{k:03d}.txt", f"cat {k // 1.1:.0f}".encode()) for k in range(60)
    ]
    write_tar(tmp_path / "captions.tar", members)
    images = TarShards(str(tmp_path / "captions.tar")).read(Fit())
    assert images.labels is None and any("are captions, no classes" in note for note in images.notes)
