"""What the other scripts need to know of a program: ELF, 64 bits, little-endian."""

import json
import struct
import zlib

INTERPRETER, DYNAMIC = 3, 2  # types of program headers
NEEDED = 1  # a tag of the dynamic section


class Elf:
    """A program in memory."""

    def __init__(self, data):
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("this is no ELF file of 64 bits, little-endian")
        self.data = data
        self.program_headers, self.section_headers = struct.unpack_from("<QQ", data, 32)
        _, self.segments, self.section_size, self.sections, self.names = struct.unpack_from("<HHHHH", data, 54)

    def _segment(self, kind):
        """The content of the first segment of that type, or None."""
        for number in range(self.segments):
            header = struct.unpack_from("<IIQQQQQQ", self.data, self.program_headers + 56 * number)
            if header[0] == kind:
                return self.data[header[2] : header[2] + header[5]]
        return None

    def _section_header(self, number):
        """Where its name is, where its content is, and how much of it."""
        header = struct.unpack_from("<IIQQQQ", self.data, self.section_headers + self.section_size * number)
        return header[0], header[4], header[5]

    def section(self, wanted):
        """The content of the section of that name, or None."""
        _, names, _ = self._section_header(self.names)
        for number in range(self.sections):
            name, offset, size = self._section_header(number)
            start = names + name
            if self.data[start : self.data.index(b"\0", start)] == wanted.encode():
                return self.data[offset : offset + size]
        return None

    def is_static(self):
        """Whether it runs where there is nothing else: no loader, no library."""
        dynamic = self._segment(DYNAMIC) or b""
        tags = (struct.unpack_from("<qQ", dynamic, at)[0] for at in range(0, len(dynamic), 16))
        return self._segment(INTERPRETER) is None and NEEDED not in tags

    def crates(self):
        """The crates that cargo-auditable noted: name, version, source, kind, dependencies by their number, root."""
        noted = self.section(".dep-v0")
        return [] if noted is None else json.loads(zlib.decompress(noted))["packages"]
