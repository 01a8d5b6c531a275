"""Two Postern processes on one store: how long after a sign-out was acknowledged by one of them the other still answers 200."""

import http.client
import statistics
import sys
import time

from programs import PORTAL, Postern

TIMES = 500
# Longer than that, and it is no delay but a fault (THREATS 36).
BOUND = 1.0


class Line:
    """A connection that is kept."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self.connection.connect()

    def ask(self, method, path, headers):
        self.connection.request(method, path, headers=headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status


def delays(here, there, times):
    """Seconds from the acknowledgement of a sign-out by `here` to the last 200 of `there`; 0 where there was none."""
    path = "/api/authz/forward-auth"
    _, description = there.asked()
    asking, ending = Line(there.forward_auth), Line(here.forward_auth)
    result = []
    for number in range(times):
        cookies = here.sign_in()
        question = {**description, "Cookie": cookies.split(";")[0]}
        if asking.ask("GET", path, question) != 200:
            sys.exit("a session of one node is unknown to the other")
        status = ending.ask("POST", "/auth/logout", {"Host": PORTAL, "Cookie": cookies, "Content-Length": "0"})
        if status != 204:
            sys.exit(f"a sign-out was answered {status}")
        acknowledged, last = time.monotonic(), 0.0
        while True:
            began = time.monotonic()
            if asking.ask("GET", path, question) != 200:
                break
            last = began - acknowledged
            if last > BOUND:
                sys.exit(f"a session is accepted {last:.3f} s after its end was acknowledged")
        result.append(last)
        if number % 100 == 99:
            print(f"  {number + 1} sign-outs", flush=True)
    return result


def measure(machine, binary, upstream, stores, times=TIMES):
    """The lines of the results. `stores`: name -> the keys of `storage:`."""
    lines = []
    for name, storage in stores.items():
        print(f"fleet on {name}", flush=True)
        folder = "fleet_" + name.replace(" ", "_")
        key = f"key_file: '{machine.folder}/{folder}.key'"
        here, there = (Postern(machine, binary, f"{folder}_{node}", 50, upstream, storage=f"{storage}, {key}", processor=node, user=not node)
                       for node in (0, 1))
        seen = sorted(delays(here, there, times))
        p99, most = seen[int(len(seen) * 0.99) - 1] * 1000, seen[-1] * 1000
        lines.append(f"| sign-out on one node to the last 200 of another, {name}, {times} times | p50 {statistics.median(seen) * 1000:.1f} ms, "
                     f"p99 {p99:.1f} ms, most {most:.1f} ms | p99 ≤ 50 ms, most ≤ 1,000 ms | {'yes' if p99 <= 50 and most <= 1000 else '**no**'} |")
    return lines
