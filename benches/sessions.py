"""A million sessions in memory: what they weigh, and what a look-up costs beside one among a thousand (PERFORMANCE.md)."""

import base64
import hashlib
import json
import random
import sqlite3
import statistics
import sys
import time

from programs import DOMAIN, Postern, load

MANY, FEW = 1_000_000, 1_000
# Of each user; nobody has a million devices.
EACH = 10

# wrk's side: the cookies of a file in turn, which costs it the same however many there are: nothing is picked by chance or formatted anew, and what it
# leaves behind is not collected. By chance is their order in the file.
SCRIPT = """
local cookies, at, head, tail = {}, 0
function init(args)
    for line in io.lines(args[1]) do cookies[#cookies + 1] = line end
    at = tonumber(args[2])
    wrk.headers["Cookie"] = "postern_session=?"
    head, tail = wrk.format():match("^(.*postern_session=)%?(.*)$")
    collectgarbage("stop")
end
function request()
    at = at % #cookies + 1
    return head .. cookies[at] .. tail
end
"""


def fill(count, cookies):
    """Puts sessions of as many users as are needed into the SQLite file of a server that does not run yet, and their cookies into a file."""

    def into(folder):
        now = time.time_ns() // 1_000_000
        database = sqlite3.connect(folder / "data/postern.db")
        chance = random.Random(count)

        def secret():
            return base64.urlsafe_b64encode(chance.randbytes(32)).decode().rstrip("=")

        users = [f"user{number:06}" for number in range(max(count // EACH, 1))]
        database.executemany("INSERT INTO users (folded, name, display_name, groups) VALUES (?, ?, ?, ?)",
                             ((user, user, f"Number {user}", json.dumps(["staff", "bench"])) for user in users))
        with open(cookies, "w") as told:
            def rows():
                for number in range(count):
                    gate, user = secret(), users[number // EACH]
                    told.write(gate + "\n")
                    yield (secret(), user, user, "one", DOMAIN, hashlib.sha256(gate.encode()).digest(), chance.randbytes(32), 0, now, now,
                           now, "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0", "192.0.2.7")
            database.executemany(
                "INSERT INTO sessions (id, folded, name, factor, domain, gate_hash, portal_hash, remembered, created_at, signed_in_at,"
                " last_used_at, user_agent, address) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows())
        database.commit()
        database.close()
    return into


def cached(server, script, count):
    """Asks with every cookie in turn until all sessions are in memory; the growth of resident memory in bytes."""
    before, deadline = server.memory(), time.monotonic() + 600
    url, headers = server.asked()
    del headers["Cookie"]
    while (read := server.metric('postern_session_cache_total{result="miss"}')) < count:
        if time.monotonic() > deadline:
            sys.exit(f"after 10 minutes not all of {count} sessions are in memory")
        load(url, headers, 5, (script, server.cookies, max(read - 1_000, 0)))
    return server.memory() - before


def measure(machine, binary, upstream, rounds, seconds):
    """The lines of the results."""
    script = machine.folder / "sessions.lua"
    script.write_text(SCRIPT)
    servers = {}
    for name, count in (("few", FEW), ("many", MANY)):
        cookies = machine.folder / f"{name}.cookies"
        began = time.monotonic()
        server = Postern(machine, binary, f"postern_{name}_sessions", 50, upstream, fill=fill(count, cookies))
        server.cookies, server.shuffled = cookies, cookies.with_suffix(".shuffled")
        lines = cookies.read_text().splitlines()
        random.Random(count).shuffle(lines)
        server.shuffled.write_text("\n".join(lines) + "\n")
        print(f"  {count:,} sessions in the database, server ready: {time.monotonic() - began:.0f} s", flush=True)
        began = time.monotonic()
        grown = cached(server, script, count)
        print(f"  all in memory after {time.monotonic() - began:.0f} s: {grown / 1e6:.0f} MB more", flush=True)
        servers[name] = (server, grown)
    # What the server's processor needed for a request: wrk needs more than the server does, and a server that waits for it is no slower for that. Beside
    # it SQLite writes the last uses behind: here each request is another session's, so that there is one to write for each.
    seen, costs, behind = ({name: [] for name in servers} for _ in range(3))
    for round_ in range(rounds):
        for name, (server, _) in servers.items():
            url, headers = server.asked()
            del headers["Cookie"]
            before = server.processor_time()
            rate, _ = load(url, headers, seconds, (script, server.shuffled, round_ * seconds * 40_000))
            serving, writing = ((now - then) / (rate * seconds) * 1e6 for now, then in zip(server.processor_time(), before))
            seen[name].append(rate)
            costs[name].append(serving)
            behind[name].append(writing)
            print(f"  {name:8} {rate:10,.0f} req/s, {serving:.2f} µs of processor time a request, {writing:.2f} of SQLite's", flush=True)
    rates, last_uses = ({name: statistics.median(of[name]) for name in of} for of in (seen, behind))
    few, many = (statistics.median(costs[name]) for name in ("few", "many"))
    grown, slower = servers["many"][1] / 1e6, many / few
    return [
        f"| {MANY:,} sessions in memory: growth of resident memory | {grown:,.0f} MB | ≤ 450 MB | {'yes' if grown <= 450 else '**no**'} |",
        f"| forward-auth answer, any of {MANY:,} sessions: its processor time / of {FEW:,} | {slower:.2f} × ({many:.2f} and {few:.2f} µs, beside "
        f"{last_uses['many']:.2f} and {last_uses['few']:.2f} of SQLite for last uses; {rates['many']:,.0f} and {rates['few']:,.0f} req/s) | ≤ 1.3 × | "
        f"{'yes' if slower <= 1.3 else '**no**'} |",
    ]
