"""Kinds of image files, recognised by their first bytes, and what is done with each: read, or left out with what to do."""

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass

from unnoise.utils.names import MARK

HEAD = 1024  # bytes of a file that are looked at

Test = bytes | Callable[[bytes], bool]


@dataclass(frozen=True)
class Kind:
    """One kind: its `name`, how its files begin, their extensions, and the module that reads them, "" for none.

    `remedy` says what to do with those that can't be read; `by_name`: the extension decides, as the content is that of another.
    """

    name: str
    begins: tuple[Test, ...]
    extensions: str
    module: str = ""
    remedy: str = "save them as PNG"
    by_name: bool = False

    def is_begun_by(self, head: bytes) -> bool:
        return any(head.startswith(t) if isinstance(t, bytes) else t(head) for t in self.begins)

    @property
    def is_read(self) -> bool:
        """Whether it can be read here."""
        return bool(self.module) and importlib.util.find_spec(self.module) is not None


def _box(*brands: bytes) -> Callable[[bytes], bool]:
    """ISO base media files (ISO 14496-12) of one of these brands."""

    def test(head: bytes) -> bool:
        if head[4:8] != b"ftyp":
            return False
        end = min(int.from_bytes(head[:4], "big"), len(head))
        compatible = {head[k : k + 4] for k in range(16, end, 4)}
        major = {b"mif1": compatible, b"msf1": compatible}.get(head[8:12], {head[8:12]})
        return bool(major & set(brands))

    return test


def _pattern(pattern: bytes) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern, re.DOTALL)
    return lambda head: compiled.match(head) is not None


TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RAW = (".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 "
       ".srf .srw .x3f")  # fmt: skip

KINDS = (  # in this order they are looked for: the most frequent first, camera raw before TIFF
    Kind("JPEG", (b"\xff\xd8\xff",), ".jpg .jpeg .jpe .jfif .jif .mpo", "PIL"),
    Kind("PNG", (b"\x89PNG\r\n\x1a\n",), ".png .apng", "PIL"),
    Kind("WebP", (_pattern(rb"RIFF.{4}WEBP"),), ".webp", "PIL"),
    Kind("GIF", (b"GIF87a", b"GIF89a"), ".gif", "PIL"),
    Kind("camera raw", (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", _pattern(rb"II\*\0.{4}CR"),
                        _pattern(rb"II\x1a\0.{2}HEAPCCDR"), _box(b"crx ")), RAW, "", "export them as TIFF or JPEG", by_name=True),
    Kind("TIFF", TIFF, ".tif .tiff .btf .tf8", "PIL"),
    Kind("BMP", (_pattern(rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}"),), ".bmp .dib", "PIL"),
    Kind("PPM", (_pattern(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s"),), ".ppm .pgm .pbm .pnm", "PIL"),
    Kind("AVIF", (_box(b"avif", b"avis"),), ".avif .avifs", "PIL._avif", "pip install -U pillow"),
    Kind("HEIC", (_box(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),), ".heic .heif .hif .heics",
         "pillow_heif", "pip install 'unnoise[heif]'"),
    Kind("JPEG XL", (b"\xff\x0a", b"\0\0\0\x0cJXL "), ".jxl"),
    Kind("JPEG 2000", (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), ".jp2 .j2k .jpf .jpx .jpm .jpc .j2c"),
    Kind("JPEG XR", (b"II\xbc\x01",), ".jxr .wdp .hdp"),
    Kind("Photoshop", (b"8BPS",), ".psd .psb"),
    Kind("Krita, GIMP or Affinity", (b"gimp xcf",), ".xcf .kra .ora .afphoto"),
    Kind("SVG", (_pattern(rb"(\xef\xbb\xbf)?\s*(<\?xml.*?\?>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg.*?>\s*)?<svg\b"),), ".svg .svgz"),
    Kind("EPS or WMF", (b"\xd7\xcd\xc6\x9a", b"\xc5\xd0\xd3\xc6", _pattern(rb"%!PS-Adobe-\S+ EPSF")), ".eps .wmf .emf"),
    Kind("OpenEXR or HDR", (b"v/1\x01", b"#?RADIANCE", b"#?RGBE", _pattern(rb"P[Ff]\s+\d+\s")), ".exr .pfm", "",
         "save them as TIFF, and give data.range"),
    Kind("DICOM, FITS or NIfTI", (_pattern(rb".{128}DICM"), b"SIMPLE  ="), ".dcm .dicom .fits .nii", "",
         "save them as TIFF, and give data.range"),
    Kind("Targa, icon or alike", (b"qoif", b"DDS ", _pattern(rb"\0\0[\x01\x02]\0[^\0]\0.{3}\0"), b"icns\0", b"BPG\xfb"),
         ".tga .ico .cur .icns .pcx .sgi .xbm .xpm .dds .qoi .bpg .flif .jng .pam"),
)  # fmt: skip
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")  # extensions of what may hold images
BY_EXTENSION = {extension: kind for kind in KINDS for extension in kind.extensions.split()}
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF")  # Pillow's names of those that it reads by itself


def kind_of(head: bytes, extension: str) -> Kind | None:
    """The kind of image that a file with these first bytes and this extension (".jpg") is or claims to be; None for none.

    The content goes before the name, but for camera raw, which is TIFF within.
    """
    named = BY_EXTENSION.get(extension.lower())
    found = next((kind for kind in KINDS if kind.is_begun_by(head)), None)
    return named if named is not None and (found is None or (named.by_name and head.startswith(TIFF))) else found


def is_generated(head: bytes) -> bool:
    """Whether this program wrote the PNG or GIF that begins so."""
    key, program = (word.encode() for word in MARK)
    if head.startswith(b"\x89PNG"):  # behind the header of fixed length stands the first text
        return head[37:41] in (b"tEXt", b"iTXt") and head[41:].startswith((key + b"\0" + program, program))
    return head.startswith(b"GIF8") and b"\x21\xfe" + bytes([len(program)]) + program + b"\0" in head
