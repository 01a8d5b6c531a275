"""Limits: what counting costs beside not counting, what a refusal costs beside a forward, what a million keys weigh, whether three nodes on one Redis
grant what one limit says and no more, and what a client that is refused meets (PERFORMANCE.md)."""

import bisect
import statistics
import subprocess
import sys
import time

from programs import APP, Postern, load

# Never reached.
PLENTY = 10_000_000
# A minute is what the run with `Retry-After` lasts.
MINUTE = 100
NODES, SHARED, SECONDS = 3, 1_000, 12
KEYS = 1_000_000

POLICIES = f"""
limits:
  - {{ name: plenty, match: {{ domain: {APP}, path: /dashboards/** }}, key: user, rates: [{PLENTY}/minute] }}
  - {{ name: none left by user, match: {{ domain: {APP}, path: /by-user/** }}, key: user, rates: [1/day] }}
  - {{ name: none left by address, match: {{ domain: {APP}, path: /by-address/** }}, key: ip, rates: [1/day] }}
  - {{ name: minute, match: {{ domain: {APP}, path: /minute/** }}, key: user, rates: [{MINUTE}/minute] }}
  - {{ name: shared, match: {{ domain: {APP}, path: /shared/** }}, key: user, rates: [{SHARED}/second] }}
  - {{ name: keys, match: {{ domain: {APP}, path: /keys/** }}, key: "header:X-Key", rates: [100/hour] }}
  - {{ name: more keys, match: {{ domain: {APP}, path: /more-keys/** }}, key: "header:X-Key", rates: [100/hour] }}
"""

# wrk's side: a header with another number in each request, from a first one on.
COUNTING = """
local number, head, tail
function init(args)
    number = tonumber(args[1])
    wrk.headers["X-Key"] = "?"
    head, tail = wrk.format():match("^(.*X%-Key: )%?(.*)$")
    collectgarbage("stop")
end
function request()
    number = number + 1
    return head .. number .. tail
end
"""

# Writes down of each request when it was sent and answered, by a clock that all processes share, its status and its Retry-After. One connection a thread,
# so that an answer belongs to the request before it.
RECORDING = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long nanoseconds; } moment; int clock_gettime(int clock, moment *now);")
local moment = ffi.new("moment")
local function now()
    ffi.C.clock_gettime(1, moment)
    return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end
local threads = 0
function setup(thread)
    threads = threads + 1
    thread:set("number", threads)
end
local sent, out, pause
function init(args)
    out, pause = io.open(args[1] .. number, "w"), tonumber(args[2])
end
function delay() return pause end
function request()
    sent = now()
    return wrk.format()
end
function response(status, headers)
    local wait = 0
    for name, value in pairs(headers) do
        if name:lower() == "retry-after" then wait = value end
    end
    out:write(string.format("%.6f %.6f %d %s\\n", sent, now(), status, wait))
    out:flush()
end
"""


class Recorder:
    """wrk that writes down what each request met."""

    def __init__(self, machine, name, asked, seconds, connections, pause):
        script = machine.folder / "recording.lua"
        script.write_text(RECORDING)
        self.folder = machine.folder / f"recorded-{name}"
        self.folder.mkdir()
        url, headers = asked
        command = ["taskset", "-c", "1", "wrk", f"-t{connections}", f"-c{connections}", f"-d{seconds}s", "-s", script]
        for header in headers.items():
            command += ["-H", ": ".join(header)]
        self.process = subprocess.Popen([*map(str, command), url, "--", f"{self.folder}/", str(pause)], stdout=subprocess.DEVNULL)

    def answers(self):
        """(sent, answered, status, Retry-After) of each, by when they were answered."""
        if self.process.wait() != 0:
            sys.exit("wrk failed")
        lines = [line.split() for file in self.folder.iterdir() for line in file.read_text().splitlines()]
        return sorted(((float(sent), float(answered), int(status), int(wait)) for sent, answered, status, wait in lines),
                      key=lambda answer: answer[1])


def at(server, path, asked):
    """The same request for another path."""
    url, headers = asked
    if "X-Forwarded-Uri" in headers:
        return url, {**headers, "X-Forwarded-Uri": path}
    return f"http://127.0.0.1:{server.edge}{path}", headers


def refusals(server, rounds, seconds):
    """What a request costs that is let pass, and one that is refused."""
    lines = []
    for role, asked in (("edge", server.proxied()), ("forward_auth", server.asked())):
        paths = {"let pass": "/dashboards/home", "refused by user": "/by-user/home", "refused by address": "/by-address/home"}
        costs = {name: [] for name in paths}
        for path in paths.values():
            load(*at(server, path, asked), 1, may_be_refused=True)
        for _ in range(rounds):
            for name, path in paths.items():
                before = server.processor_time()
                rate, _ = load(*at(server, path, asked), seconds, may_be_refused=name != "let pass")
                costs[name].append((server.processor_time()[0] - before[0]) / (rate * seconds) * 1e6)
                print(f"  {role:12} {name:20} {rate:10,.0f} req/s, {costs[name][-1]:.2f} µs of processor time a request", flush=True)
        passed, *refused = (statistics.median(of) for of in costs.values())
        for name, cost in zip(list(paths)[1:], refused):
            lines.append(f"| {role}, a request {name} / one that is let pass, processor time | {cost / passed:.2f} × ({cost:.1f} and {passed:.1f} µs) | < 1 × | "
                         f"{'yes' if cost < passed else '**no**'} |")
    return lines


def weight(machine, server):
    """Resident memory that a million keys add, and the next million, which is beyond what is kept."""
    script = machine.folder / "counting.lua"
    script.write_text(COUNTING)
    grown = []
    url, headers = server.asked()
    headers = {**headers, "X-Forwarded-Uri": "/dashboards/home"}
    # What asking so often takes by itself.
    load(url, headers, 2, (script, 0))
    began = server.memory()
    for path, count in (("/keys/home", KEYS // 4 * 3), ("/more-keys/home", KEYS // 4), ("/more-keys/home", KEYS)):
        limit = path.split("/")[1].replace("-", " ")

        def counted():
            return sum(server.metric(f'postern_rate_limit_requests_total{{limit="{limit}",status="{status}"}}') for status in ("allowed", "limited"))
        start = counted()
        while (done := counted() - start) < count:
            # Beyond what is kept keys count together, and have to wait.
            load(url, {**headers, "X-Forwarded-Uri": path}, 3, (script, KEYS * len(grown) * 2 + done), may_be_refused=True)
        grown.append((server.memory() - began) / 1e6)
    _, full, beyond = grown
    print(f"  {KEYS:,} keys: {full:.0f} MB; asked for another {KEYS:,}: {beyond:.0f} MB", flush=True)
    met = beyond <= full * 1.1
    return [f"| {KEYS:,} keys of one window each, counted in memory: growth of resident memory | {full:.0f} MB; {beyond:.0f} MB after {KEYS:,} further keys | bounded | "
            f"{'yes' if met else '**no**'} |"]


def waits(machine, server):
    """A client that asks on and on, whatever it is told: granted, refused for as long as `Retry-After` says, granted."""
    # Beyond the minute.
    answers = Recorder(machine, "minute", at(server, "/minute/home", server.proxied()), 66, 2, 10).answers()
    granted = [answer for answer in answers if answer[2] == 200]
    first, again = granted[0], granted[MINUTE]
    refused = [answer for answer in answers if answer[2] == 429 and answer[1] < again[1]]
    # When each of them promised that one would pass.
    promised = [answered + wait for _, answered, _, wait in refused]
    late, early = max(promised) - again[1], min(promised) - again[1]
    is_right = ({status for *_, status, _ in answers} == {200, 429} and len(refused) > MINUTE and again[1] - first[0] >= 60
                and early > -0.1 and late < 1.3)
    print(f"  {len(answers)} answers: {MINUTE} of 200, then {len(refused)} of 429, 200 again after {again[1] - first[1]:.2f} s; "
          f"Retry-After promised it {early:+.2f} to {late:+.2f} s of when it came", flush=True)
    return [f"| wrk on `{MINUTE}/minute`: {MINUTE} × 200, 429 with `Retry-After`, 200 | again after {again[1] - first[1]:.2f} s; {len(refused)} refusals said so, from "
            f"{abs(early):.2f} s {'before' if early < 0 else 'after'} to {late:.2f} s after it was true | 60 s; whole seconds, rounded up | {'yes' if is_right else '**no**'} |"]


def exactness(machine, binary, upstream, redis):
    """Three nodes on one Redis."""
    key = f"key_file: '{machine.folder}/limits.key', counters: '{redis}'"
    nodes = [Postern(machine, binary, f"limits_{node}", 50, upstream, limits=POLICIES,
                     storage=f"database: 'sqlite://{machine.folder}/limits_{node}/data/postern.db', {key}") for node in range(NODES)]
    recorders = [Recorder(machine, f"node-{number}", at(node, "/shared/home", node.asked()), SECONDS, 4, 0) for number, node in enumerate(nodes)]
    answers = sorted((answer for recorder in recorders for answer in recorder.answers() if answer[2] == 200), key=lambda answer: answer[0])
    sent, answered = [answer[0] for answer in answers], sorted(answer[1] for answer in answers)
    # What was surely granted within a second: sent in it and answered in it.
    most = 0
    for first, begin in enumerate(sent):
        within = answers[first:bisect.bisect_right(sent, begin + 1)]
        most = max(most, sum(answer[1] <= begin + 1 for answer in within))
    lasted = answered[-1] - sent[0]
    # The limit is full at once, and then as much leaves as comes.
    share = len(answers) / (SHARED * lasted)
    print(f"  {len(answers)} granted in {lasted:.2f} s, {most} at most within a second", flush=True)
    met = most <= SHARED and 0.98 <= share
    return nodes, [f"| {SHARED:,}/second over {NODES} nodes on one Redis: most within any second / limit; all / limit × {lasted:.1f} s | {most / SHARED:.3f}; {share:.3f} | "
                   f"never above 1.00; ≥ 0.98 | {'yes' if met else '**no**'} |"]


def costs(plain, limited, shared, rounds, seconds):
    """Forward-auth answers with a limit that is far away, beside none."""
    servers = {"none": plain, "memory": limited, "Redis": shared}
    seen = {name: [] for name in servers}
    for round_ in range(rounds):
        for name, server in servers.items():
            before = server.processor_time()
            rate, p99 = load(*at(server, "/dashboards/home", server.asked()), seconds)
            cost = (server.processor_time()[0] - before[0]) / (rate * seconds) * 1e6
            seen[name].append((rate, p99, cost))
            print(f"  limit: {name:8} {rate:10,.0f} req/s   p99 {p99:7.2f} ms, {cost:.2f} µs of processor time a request", flush=True)
    medians = {name: tuple(map(statistics.median, zip(*results))) for name, results in seen.items()}
    rate, _, cost = medians["none"]
    return [f"| forward-auth answer under a limit counted in {where} that is far away / under none | {medians[where][0] / rate:.2f} of the requests "
            f"({medians[where][0]:,.0f} and {rate:,.0f}), {medians[where][2]:.1f} and {cost:.1f} µs of processor time, p99 {medians[where][1]:.2f} ms | none set | |"
            for where in ("memory", "Redis")]


def measure(machine, binary, upstream, rounds, seconds):
    """The lines of the results."""
    plain = Postern(machine, binary, "postern_without_limits", 50, upstream)
    limited = Postern(machine, binary, "postern_limits", 50, upstream, limits=POLICIES)
    nodes, lines = exactness(machine, binary, upstream, machine.redis(1, "limits"))
    lines += costs(plain, limited, nodes[0], rounds, seconds)
    lines += refusals(limited, rounds, seconds)
    lines += waits(machine, limited)
    return lines + weight(machine, limited)
