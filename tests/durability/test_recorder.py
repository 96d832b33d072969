"""The recorder's own test: a small program writes in known ways under it, and the folder is cut back.
Run: python3 tests/durability/test_recorder.py FSYNC_RECORDER.so"""
import os
import pathlib
import subprocess
import sys
import tempfile

from cutback import cut_back

PROGRAM = r"""
import os, sys
os.chdir(sys.argv[1])
def put(name, data, sync=True, flags=os.O_CREAT | os.O_WRONLY):
    fd = os.open(name, flags); os.write(fd, data)
    if sync: os.fsync(fd)
    return fd
def sync_folder():
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY); os.fsync(fd); os.close(fd)
log = put("log", b"synced"); os.write(log, b" and not")
put("named", b"kept")
put("old", b"first"); sync_folder()
put("new", b"second"); os.rename("new", "old")       # durable content, but not the rename
put("nameless", b"x")                                # the folder is not synced after this
over = put("over", b"x", False, os.O_WRONLY)
os.lseek(over, 0, 0); os.write(over, b"ABCD"); os.fdatasync(over); os.pwrite(over, b"zz", 1)
put("never", b"gone", False, os.O_WRONLY)
put("before", b"!", False, os.O_WRONLY | os.O_APPEND)
os.kill(os.getpid(), 9)
"""


def main(library):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder, "data")
        root.mkdir()
        for name, data in (("over", b"abcdef"), ("never", b"safe"), ("before", b"there")):
            root.joinpath(name).write_bytes(data)
        journal = f"{folder}/journal"
        subprocess.run([sys.executable, "-c", PROGRAM, root], check=False, env={
            **os.environ, "LD_PRELOAD": library, "FSYNC_ROOT": str(root), "FSYNC_JOURNAL": journal})
        outcome = cut_back(root, journal)
        found = {path.name: path.read_bytes() for path in root.iterdir()}
        wanted = {"log": b"synced", "named": b"kept", "old": b"first", "over": b"ABCDef", "never": b"safe",
                  "before": b"there"}
        assert found == wanted, f"{found}\nwanted {wanted}\n{outcome}"
    print("fsync recorder: passed")


main(os.path.abspath(sys.argv[1]))
