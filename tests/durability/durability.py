#!/usr/bin/env python3
"""Kills the real server at random moments under load and looks whether it kept its word.

In each round senders write, the process gets SIGKILL, and, in the modes `cut` and `torn`, the files are taken back
to what fsync made durable (fsync_recorder.c says why). After the restart every acknowledged event must be there,
once and in order, state and sync must agree with the timeline, and repeated transactions must find their events.
`--lie` is the test's own test: the recorder says that nothing was synced, so the check has to find losses.
"""
import argparse
import collections
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from check import check_follower, check_room, check_sender, check_state  # noqa: E402
from cutback import cut_back  # noqa: E402
from effects import Busy, check_busy  # noqa: E402
from hearth import MatrixError, Server, quote  # noqa: E402
from load import Follower, Sender  # noqa: E402

ROOMS = 3
ROUNDS_A_ROOM = 4  # then new rooms, so that a round's check does not grow with the test


class Test:
    def __init__(self, arguments, server):
        self.arguments, self.server = arguments, server
        self.random = random.Random(arguments.seed)
        self.journal = server.folder / "fsync-journal"
        self.rooms, self.old_rooms = [], []
        self.senders, self.busy, self.follower = [], [], None
        self.events = {}
        self.totals = collections.Counter()

    def start(self):
        environment = {}
        if self.arguments.mode != "kill":
            self.server.data.mkdir(exist_ok=True)
            environment = {"LD_PRELOAD": str(pathlib.Path(self.arguments.recorder).resolve()),
                           "FSYNC_ROOT": str(self.server.data), "FSYNC_JOURNAL": str(self.journal)}
            if self.arguments.lie and self.senders:
                environment["FSYNC_RECORDER_LIE"] = "1"
        seconds = self.server.start(environment)
        for someone in self.everyone():
            someone.client.close()
        return seconds

    def everyone(self):
        return [*self.senders, *self.busy, *([self.follower] if self.follower else [])]

    def set_up(self):
        self.start()
        seed = self.arguments.seed
        self.senders = [Sender(self.server, number, seed) for number in range(self.arguments.senders)]
        self.follower = Follower(self.server)
        self.set_up_busy()
        self.new_rooms()
        if self.arguments.lie:
            # From here on under the lying recorder; what came before is durable.
            self.server.stop()
            cut_back(self.server.data, self.journal)
            self.start()

    def set_up_busy(self):
        owner = self.senders[0].client
        hall = owner.call("POST", "/createRoom", {"preset": "public_chat", "name": "Hall"})["room_id"]
        numbers = range(self.arguments.busy)
        self.busy = [Busy(self.server, number, self.arguments.seed, self.events) for number in numbers]
        for busy in self.busy:
            busy.hall, busy.hall_owner = hall, owner
            busy.others, busy.follower = self.busy, self.follower.client.user_id
        for sender in self.senders:
            sender.acknowledged = self.events

    def new_rooms(self):
        self.old_rooms += self.rooms
        owner = self.senders[0].client
        self.rooms = []
        for number in range(ROOMS):
            self.rooms.append(owner.call("POST", "/createRoom", {
                "preset": "public_chat", "name": f"Room {len(self.old_rooms) + number}",
                "power_level_content_override": {"users_default": 50},
            })["room_id"])
        for room in self.rooms:
            for client in [someone.client for someone in self.everyone()[1:]]:
                client.call("POST", f"/join/{quote(room)}", {})
        for someone in [*self.senders, *self.busy]:
            someone.rooms = self.rooms

    def round(self, number):
        """One life and death of the process; the problems found after it."""
        workers = [*self.senders, *self.busy]
        before = sum(len(worker.done) for worker in workers)
        self.follower.start()
        for worker in workers:
            worker.start()
        time.sleep(self.random.uniform(0.05, self.arguments.seconds))
        self.server.kill()
        self.follower.stopped = True
        for someone in self.everyone():
            someone.thread.join(90)
        acked = sum(len(worker.done) for worker in workers) - before
        lost = ""
        if self.arguments.mode != "kill":
            torn = self.random if self.arguments.mode == "torn" else None
            outcome = cut_back(self.server.data, self.journal, torn)
            lost = f", {outcome.syncs} syncs, {outcome.bytes_cut} bytes cut, {len(outcome.names_undone)} names undone"
            self.totals["bytes"] += outcome.bytes_cut
            for sentence in sorted(outcome.not_followed):
                print(f"  the recorder does not follow: {sentence}")
        ready = self.start()
        self.totals["acked"] += acked
        problems = self.verify(self.rooms)
        print(f"  round {number}: {acked} acknowledged{lost}, ready in {ready * 1000:.0f} ms, "
              f"{'consistent' if not problems else f'{len(problems)} PROBLEMS'}", flush=True)
        return problems

    def verify(self, rooms):
        problems = []
        for worker in [*self.senders, *self.busy]:
            worker.repeat_open()
        for someone in self.everyone():
            problems += someone.failures
            someone.failures.clear()
        while self.follower.step(0):
            pass
        reader = self.senders[0].client
        histories = {room: reader.history(room) for room in rooms}
        for room, history in histories.items():
            problems += check_room(room, history, self.senders)
            problems += check_state(room, history, reader)
        for sender in self.senders:
            problems += check_sender(sender)
        for busy in self.busy:
            problems += check_busy(busy, self.follower, histories, self.busy)
        return problems + check_follower(self.follower, histories)

    def run(self):
        self.set_up()
        for number in range(1, self.arguments.rounds + 1):
            try:
                problems = self.round(number)
            except (MatrixError, RuntimeError) as error:
                problems = [f"after the restart: {error}"]
            if problems:
                return problems
            if number % ROUNDS_A_ROOM == 0:
                self.new_rooms()
        problems = self.verify(self.old_rooms + self.rooms)
        self.server.stop()
        return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("kill", "cut", "torn"), default="kill")
    parser.add_argument("--recorder", help="the built fsync_recorder library, for cut and torn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--senders", type=int, default=16)
    parser.add_argument("--busy", type=int, default=4, help="users who do everything but send messages")
    parser.add_argument("--seconds", type=float, default=2.0, help="the longest life of the process")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--shards", type=int)
    parser.add_argument("--lie", action="store_true")
    arguments = parser.parse_args()
    if arguments.mode != "kill" and not arguments.recorder:
        parser.error("--mode cut and torn need --recorder")
    print(f"durability: mode {arguments.mode}, {arguments.rounds} rounds, {arguments.senders} senders, "
          f"seed {arguments.seed}{', with a lying recorder' if arguments.lie else ''}", flush=True)
    settings = {} if arguments.shards is None else {"shards": arguments.shards}
    with Server(settings=settings) as server:
        test = Test(arguments, server)
        problems = test.run()
        if arguments.lie:
            if not problems:
                raise SystemExit("durability: the recorder lied, and no loss was found: the check sees nothing")
            print(f"durability: the check works: {problems[0][:200]}")
            return
        for problem in problems[:20]:
            print(f"  PROBLEM: {problem}")
        if problems:
            raise SystemExit(f"durability: {len(problems)} problems; seed {arguments.seed}")
    print(f"durability: passed, {test.totals['acked']} acknowledged operations"
          + (f", {test.totals['bytes']} bytes taken back" if arguments.mode != "kill" else ""))


if __name__ == "__main__":
    main()
