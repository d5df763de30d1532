"""Compiles every CUDA kernel of snn-core with NVRTC, as a program with a GPU would at run time, for several architectures.

    compile.py SRC_DIR ARCHITECTURE...        (as sm_90)

Any warning is an error. Where ptxas can be found, prints registers, shared memory and spills of every kernel; spilled registers
and local memory are errors too. No GPU is needed, and none is asked for. Needs the wheels nvidia-cuda-nvrtc and, for ptxas,
nvidia-cuda-nvcc.
"""

import ctypes
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# Beside the kernels: whoever launches them compiles them alike.
OPTIONS = "ops/cuda/nvrtc.txt"


def find(pattern):
    """The newest file of this name among the installed wheels."""
    found = [file for path in sys.path if path for file in pathlib.Path(path).glob(f"nvidia/**/{pattern}")]
    return max(found, default=None)


class Nvrtc:
    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def check(self, status):
        if status:
            raise RuntimeError(self.library.nvrtcGetErrorString(status).decode())

    def text(self, program, what):
        size = ctypes.c_size_t()
        self.check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.library, f"nvrtcGet{what}")(program, text))
        return text.raw.rstrip(b"\0").decode()

    def version(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.check(self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        return f"{major.value}.{minor.value}"

    def compile(self, file, source_dir, architecture):
        """The PTX and what the compiler had to say; no PTX where it failed."""
        program = ctypes.c_void_p()
        source = file.read_bytes()
        self.check(
            self.library.nvrtcCreateProgram(ctypes.byref(program), source, file.name.encode(), 0, None, None)
        )
        options = pathlib.Path(source_dir, OPTIONS).read_text().split()
        options += [f"--gpu-architecture={architecture.replace('sm', 'compute')}", f"-I{source_dir}"]
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = self.library.nvrtcCompileProgram(program, len(options), array)
        log = self.text(program, "ProgramLog").strip()
        ptx = None if failed else self.text(program, "PTX")
        self.check(self.library.nvrtcDestroyProgram(ctypes.byref(program)))
        return ptx, log


def resources(ptxas, ptx, architecture):
    """Lines of what each kernel takes, and whether any of them spills or has warnings."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [ptxas, "--verbose", "--warning-as-error", "--warn-on-spills", "--warn-on-local-memory-usage"]
        command += [f"--gpu-name={architecture}", source, "--output-file", pathlib.Path(folder, "kernel.cubin")]
        done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout + done.stderr
    kernels = re.findall(r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers", lines, re.S)
    report = [f"    {name}: {registers} registers, {stack} bytes of stack, {spills} spilled" for name, stack, spills, registers in kernels]
    bad = done.returncode != 0 or any(int(stack) or int(spills) for _, stack, spills, _ in kernels) or not kernels
    return report + ([lines] if bad else []), bad


def main():
    source_dir, *architectures = sys.argv[1:]
    library = find("libnvrtc.so*")
    if library is None:
        sys.exit("no NVRTC: pip install nvidia-cuda-nvrtc")
    nvrtc = Nvrtc(library)
    ptxas = find("bin/ptxas") or shutil.which("ptxas")
    print(f"NVRTC {nvrtc.version()}" + ("" if ptxas else "; skipped: registers and spills, there is no ptxas"))
    # Those under `host` test the host runner.
    files = sorted(file for file in pathlib.Path(source_dir).rglob("*.cu") if file.parent.name != "host")
    bad = not files
    for architecture in architectures:
        for file in files:
            ptx, log = nvrtc.compile(file, source_dir, architecture)
            print(f"  {architecture} {file.relative_to(source_dir)}: {'ok' if ptx and not log else log or 'failed'}")
            bad |= ptx is None or bool(log)
            if ptx and ptxas:
                report, wasteful = resources(ptxas, ptx, architecture)
                print("\n".join(report))
                bad |= wasteful
    sys.exit("kernels with errors, warnings or spills" if bad else 0)


if __name__ == "__main__":
    main()
