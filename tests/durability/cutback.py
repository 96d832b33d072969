"""Takes a folder back to what fsync_recorder.c saw made durable: what a power cut may leave.

Content: every file is cut to its durable length (in `torn` mode to a random length between that and its real
one, as part of what was written may have reached the disk), and overwritten durable bytes come back.
Names: a created or renamed file whose folder was not synced since is removed or renamed back. What an fsync of the
file itself does to its name is not relied on, as POSIX does not promise it. Unlinks and new folders count as durable.
"""
import dataclasses
import os
import pathlib
import shutil


@dataclasses.dataclass
class File:
    durable: int = 0
    undo: list = dataclasses.field(default_factory=list)  # (offset, file with the old bytes)


@dataclasses.dataclass
class Outcome:
    """What was taken back; for the report, and for the test to see that it tested something."""
    syncs: int = 0
    files_cut: int = 0
    bytes_cut: int = 0
    overwrites_undone: int = 0
    names_undone: list = dataclasses.field(default_factory=list)
    not_followed: set = dataclasses.field(default_factory=set)


def read_journal(journal):
    """The files by inode, the name changes that no folder's fsync followed, and counts."""
    files, names, outcome = {}, [], Outcome()
    with open(journal, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            kind, *rest = line.rstrip("\n").split("\t")
            if kind == "E":
                files[rest[0]] = File(int(rest[1]))
            elif kind == "C":
                files[rest[0]] = File()
                names.append(("create", rest[0], rest[1], None))
            elif kind == "S":
                outcome.syncs += 1
                file = files.setdefault(rest[0], File())
                file.durable = int(rest[1])
                file.undo.clear()
            elif kind == "T":
                file = files.setdefault(rest[0], File())
                file.durable = min(file.durable, int(rest[1]))
            elif kind == "W":
                files[rest[0]].undo.append((int(rest[1]), rest[2]))
            elif kind == "D":
                names = [change for change in names if os.path.dirname(change[2]) != rest[0]]
            elif kind == "R":
                names.append(("rename", rest[0], rest[1], rest[2]))
            elif kind == "U":
                names = [change for change in names if not (change[0] == "create" and change[2] == rest[1])]
            elif kind == "X":
                outcome.not_followed.add("\t".join(rest))
    return files, names, outcome


def inode(path):
    status = os.stat(path)
    return f"{status.st_dev}:{status.st_ino}"


def undo_names(names, outcome):
    for kind, first, second, saved in reversed(names):
        if kind == "create":
            if os.path.exists(second) and inode(second) == first:
                os.unlink(second)
                outcome.names_undone.append(f"created {second}")
        elif os.path.exists(second) and not os.path.exists(first):
            os.rename(second, first)
            if saved != "-" and os.path.exists(saved):
                os.link(saved, second)
            outcome.names_undone.append(f"renamed {first} to {os.path.basename(second)}")


def cut_content(root, files, random, outcome):
    for folder, _, entries in os.walk(root):
        for entry in entries:
            path = os.path.join(folder, entry)
            file = files.get(inode(path))
            if file is None:
                continue
            for offset, saved in reversed(file.undo):
                with open(path, "r+b") as target:
                    target.seek(offset)
                    target.write(pathlib.Path(saved).read_bytes())
                outcome.overwrites_undone += 1
            size = os.path.getsize(path)
            keep = file.durable
            if size > keep:
                if random is not None:
                    keep = random.randint(file.durable, size)
                os.truncate(path, keep)
                outcome.files_cut += 1
                outcome.bytes_cut += size - keep


def cut_back(root, journal, random=None):
    """Cuts; with a random source, in torn mode. The journal is used up."""
    files, names, outcome = read_journal(journal)
    undo_names(names, outcome)
    cut_content(root, files, random, outcome)
    os.unlink(journal)
    shutil.rmtree(f"{journal}.saved", ignore_errors=True)
    return outcome
