"""Images that declare managed variables: refused by name by each loading function, or loaded by the program's own driver."""

from __future__ import annotations

import json
import struct

import pytest

from test_clients import run, shimmed

# Loads the images of a folder by every function; says what each answered, and what the device makes of three launches. With `late`
# the program has memory before.
PROGRAM = """
import struct, sys
from tiny import *
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
assert not cuda.cuInit(0) and not cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) and not cuda.cuCtxSetCurrent(context)
gpu = Tiny() if sys.argv[2] == "late" else None
path = sys.argv[1] + "/image.ptx"
text, fat = (ctypes.create_string_buffer(open(f"{sys.argv[1]}/image.{ending}", "rb").read()) for ending in ("ptx", "fatbin"))
wrapper = ctypes.create_string_buffer(struct.pack("<IIQQ", 0x466243B1, 1, ctypes.addressof(fat), 0))
path, handle, no = path.encode(), ctypes.c_void_p(), (None, None, 0)
print([
    cuda.cuModuleLoad(ctypes.byref(handle), path),
    cuda.cuModuleLoadData(ctypes.byref(handle), text),
    cuda.cuModuleLoadDataEx(ctypes.byref(handle), fat, 0, None, None),
    cuda.cuModuleLoadFatBinary(ctypes.byref(handle), fat),
    cuda.cuLibraryLoadData(ctypes.byref(handle), wrapper, *no, *no),
    cuda.cuLibraryLoadFromFile(ctypes.byref(handle), path, *no, *no),
], works())
"""
LOADED, REFUSED = f"{[0] * 6} 3\n", f"{[801] * 6} 3\n"
PTX = """.version 8.0
.target sm_75
.address_size 64
.visible .global {} .align 4 .u32 counter = 5;
.visible .entry bump() {{ .reg .b32 %r<3>; ld.global.u32 %r1, [counter]; add.u32 %r2, %r1, 1; st.global.u32 [counter], %r2; ret; }}
"""
PLAIN, MANAGED = (PTX.format(attribute).encode() for attribute in ("", ".attribute(.managed)"))


def fat_binary(text: bytes, is_packed: bool) -> bytes:
    """One entry of PTX, as text or as an LZ4 block of literals alone."""
    payload, flags = text, 0x11
    if is_packed:
        payload, flags = bytes([0xF0, *[255] * ((len(text) - 15) // 255), (len(text) - 15) % 255]) + text, 0x2011
    padded = payload + bytes(-len(payload) % 8)
    entry = struct.pack("<HHIQIIIIQQQQ", 1, 0x101, 64, len(padded), len(payload), 0, 0, 75, 0, flags, 0, len(text) if is_packed else 0)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entry) + len(padded)) + entry + padded


@pytest.fixture
def command(tmp_path):
    def build(ptx: bytes, when: str = "early", fat: bytes | None = None) -> list[str]:
        (tmp_path / "image.ptx").write_bytes(ptx)
        (tmp_path / "image.fatbin").write_bytes(fat or fat_binary(ptx + b"\0", is_packed=False))
        return ["python3", "-c", PROGRAM, str(tmp_path), when]

    return build


def reported(command: list[str], mode: str, folder):
    done = shimmed(command, folder / "report.json", mode)
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "report.json").read_text())["tenants"]


def test_natively_and_in_local_mode_they_load(command, tmp_path):
    native = run(command(MANAGED))
    assert (native.returncode, native.stdout, native.stderr) == (0, LOADED, "")
    done, _ = reported(command(MANAGED), "local", tmp_path)
    assert (done.stdout, done.stderr) == (LOADED, "")


@pytest.mark.parametrize("mode, when", [("sidecar", "early"), ("sidecar", "late"), ("auto", "late")])
def test_each_loading_function_refuses_them_by_name(command, tmp_path, mode, when):
    done, (tenant,) = reported(command(MANAGED, when), mode, tmp_path)
    assert done.stdout == REFUSED, "the program goes on"
    assert done.stderr.count("\n") == 1 and "managed variables" in done.stderr and "LIGHTOS_DISPATCH=local" in done.stderr
    assert tenant["mode"] == "sidecar" and tenant["reasons"]["ManagedVariables"] == 6


def test_auto_turns_local_for_managed_variables_before_memory(command, tmp_path):
    done, tenants = reported(command(MANAGED), "auto", tmp_path)
    assert (done.stdout, done.stderr) == (LOADED, "")
    assert [tenant["mode"] for tenant in tenants] == ["sidecar", "local"]


@pytest.mark.parametrize("mode", ["sidecar", "auto"])
def test_other_variables_are_carried(command, tmp_path, mode):
    """Without the attribute, or with what looks like it in a comment; and what is packed is not read."""
    images = {
        "plain": (PLAIN, None),
        "comment": (b"// .global .attribute(.managed) .u32 counter;\n" + PLAIN, None),
        "packed": (PLAIN, fat_binary(MANAGED + b"\0", is_packed=True)),
    }
    for name, (ptx, fat) in images.items():
        done, (tenant,) = reported(command(ptx, fat=fat), mode, tmp_path)
        assert (done.stdout, done.stderr) == (LOADED, ""), name
        assert tenant["mode"] == "sidecar" and "ManagedVariables" not in tenant["reasons"]
