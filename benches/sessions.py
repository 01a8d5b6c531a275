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

# wrk's side: a cookie of the file at a time, in turn or by chance, with the same work for few and for many.
SCRIPT = """
local cookies, order, at = {}, "", 0
function init(args)
    for line in io.lines(args[1]) do cookies[#cookies + 1] = line end
    order, at = args[2], tonumber(args[3])
end
function request()
    if order == "turn" then at = at % #cookies + 1 else at = math.random(#cookies) end
    wrk.headers["Cookie"] = "postern_session=" .. cookies[at]
    return wrk.format()
end
"""


def fill(count, cookies):
    """Puts sessions of as many users as are needed into the SQLite file of a server that does not run yet, and their cookies into a file."""

    def into(folder):
        now = time.time_ns() // 1_000_000
        database = sqlite3.connect(folder / "postern.db")
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
        load(url, headers, 5, (script, server.cookies, "turn", max(read - 1_000, 0)))
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
        server.cookies = cookies
        print(f"  {count:,} sessions in the database, server ready: {time.monotonic() - began:.0f} s", flush=True)
        began = time.monotonic()
        grown = cached(server, script, count)
        print(f"  all in memory after {time.monotonic() - began:.0f} s: {grown / 1e6:.0f} MB more", flush=True)
        servers[name] = (server, grown)
    seen = {name: [] for name in servers}
    for _ in range(rounds):
        for name, (server, _) in servers.items():
            url, headers = server.asked()
            del headers["Cookie"]
            seen[name].append(load(url, headers, seconds, (script, server.cookies, "chance", 0)))
            print(f"  {name:8} {seen[name][-1][0]:10,.0f} req/s", flush=True)
    few, many = (statistics.median(rate for rate, _ in seen[name]) for name in ("few", "many"))
    grown, slower = servers["many"][1] / 1e6, few / many
    return [
        f"| {MANY:,} sessions in memory: growth of resident memory | {grown:,.0f} MB | ≤ 450 MB | {'yes' if grown <= 450 else '**no**'} |",
        f"| forward-auth answer, any of {MANY:,} sessions: its time / of {FEW:,} | {slower:.2f} × ({many:,.0f} and {few:,.0f} req/s) | ≤ 1.3 × | "
        f"{'yes' if slower <= 1.3 else '**no**'} |",
    ]
