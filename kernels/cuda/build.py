#!/usr/bin/env python3
"""Compiles the CUDA C sources of this folder to the PTX that the repository carries. Needs no GPU.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python build.py

Writes ../ptx/<name>.ptx from <name>.cu (NVRTC 12, compute_75: runs on every GPU since Turing), and the PTX reader's
fixtures ../tests/fixtures/<name>.<dialect>.ptx from fixtures/<name>.cu (NVRTC) and fixtures/<name>.ll (libNVVM).
"""

import ctypes
import pathlib
import sys
import sysconfig

HERE = pathlib.Path(__file__).resolve().parent
SITE = pathlib.Path(sysconfig.get_paths()["purelib"]) / "nvidia"
FIXTURES = HERE.parent / "tests" / "fixtures"

NVRTC_12 = (SITE / "cuda_nvrtc/lib/libnvrtc.so.12", SITE / "cuda_runtime/include")
NVRTC_13 = (SITE / "cu13/lib/libnvrtc.so.13", SITE / "cu13/include")
NVVM = SITE / "cu13/lib/libnvvm.so.4"

# Options beyond the common ones, by fixture.
OPTIONS = {
    "debug": ["--device-debug"],
    "lineinfo": ["--generate-line-info"],
    "relocatable": ["--relocatable-device-code=true"],
    "fast_math": ["--use_fast_math"],
    "integers": ["--device-int128"],
}


class Compiler:
    """A library of the shape that NVRTC and libNVVM share: create, add, compile, read the result or the log."""

    def __init__(self, path, prefix):
        self.library = ctypes.CDLL(str(path))
        self.prefix = prefix
        self.program = ctypes.c_void_p()

    def call(self, name, *arguments):
        return getattr(self.library, self.prefix + name)(*arguments)

    def check(self, name, *arguments):
        status = self.call(name, *arguments)
        if status != 0:
            raise RuntimeError(f"{self.prefix}{name} failed with status {status}")

    def read(self, size_name, name):
        size = ctypes.c_size_t()
        self.check(size_name, self.program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self.check(name, self.program, text)
        return text.value.decode()

    def compile(self, options, log_names, result_names):
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if self.call("CompileProgram", self.program, len(options), array) != 0:
            raise RuntimeError(self.read(*log_names))
        return self.read(*result_names)


def nvrtc(toolkit, source, architecture, options=()):
    path, include = toolkit
    compiler = Compiler(path, "nvrtc")
    compiler.check(
        "CreateProgram", ctypes.byref(compiler.program), source.read_bytes(), source.name.encode(), 0, None, None
    )
    options = [f"--gpu-architecture={architecture}", "--std=c++17", f"--include-path={include}", *options]
    return compiler.compile(options, ("GetProgramLogSize", "GetProgramLog"), ("GetPTXSize", "GetPTX"))


def nvvm(source, architecture):
    compiler = Compiler(NVVM, "nvvm")
    compiler.check("CreateProgram", ctypes.byref(compiler.program))
    text = source.read_bytes()
    compiler.check(
        "AddModuleToProgram", compiler.program, text, ctypes.c_size_t(len(text)), source.name.encode()
    )
    return compiler.compile(
        [f"-arch={architecture}"],
        ("GetProgramLogSize", "GetProgramLog"),
        ("GetCompiledResultSize", "GetCompiledResult"),
    )


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f"{path.relative_to(HERE.parent)}: {len(text)} bytes")


def main():
    for source in sorted(HERE.glob("*.cu")):
        write(HERE.parent / "ptx" / f"{source.stem}.ptx", nvrtc(NVRTC_12, source, "compute_75"))
    for source in sorted((HERE / "fixtures").glob("*.cu")):
        options = OPTIONS.get(source.stem, [])
        for dialect, toolkit in (("12_4.compute_75", NVRTC_12), ("13_5.compute_90", NVRTC_13)):
            text = nvrtc(toolkit, source, dialect.split(".")[1], options)
            write(FIXTURES / f"{source.stem}.{dialect}.ptx", text)
    for source in sorted((HERE / "fixtures").glob("*.ll")):
        write(FIXTURES / f"{source.stem}.nvvm.ptx", nvvm(source, "compute_90"))


if __name__ == "__main__":
    try:
        main()
    except (OSError, RuntimeError) as error:
        sys.exit(f"build.py: {error}")
