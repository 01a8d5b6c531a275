#!/usr/bin/env python3
"""Measures Postern beside its references on this machine and writes benches/RESULTS.md. Called by `./dev bench`.

Every figure is a ratio against a reference of the same run: programs take turns, each for a few seconds, for several rounds,
and the median counts. The server under test has processor 0 to itself; the load generator (wrk) and the upstream (nginx)
share processor 1.
"""

import argparse
import contextlib
import datetime
import json
import pathlib
import platform
import shutil
import statistics
import sys
import tempfile

from issuer import Issuer

import fleet
import limits
import sessions
from programs import APP, Machine, Postern, free_port, load

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENVOY = ROOT / "target/tools/envoy"


def measure(cases, rounds, seconds):
    """name -> (median rate, median p99); all cases take turns in every round."""
    for url, headers, *_ in cases.values():
        load(url, headers, 1)
    seen = {name: [] for name in cases}
    for number in range(rounds):
        for name, (url, headers, *during) in cases.items():
            with during[0]() if during else contextlib.nullcontext():
                result = load(url, headers, seconds)
            seen[name].append(result)
            print(f"  round {number + 1}  {name:46} {result[0]:10,.0f} req/s   p99 {result[1]:7.2f} ms", flush=True)
    return {name: tuple(statistics.median(column) for column in zip(*results)) for name, results in seen.items()}


def row(table, what, mine, reference, goal, latency_goal=None):
    """Appends a line: ratio of rates and of the 99th percentiles, and whether the goal is met."""
    ratio, slower = mine[0] / reference[0], mine[1] / reference[1]
    met = ratio >= goal and (latency_goal is None or slower <= latency_goal)
    wanted = (f"≥ {goal:.2f}" if goal else "no request fails") + (f", p99 ≤ {latency_goal:.1f} ×" if latency_goal else "")
    table.append(f"| {what} | {mine[0]:,.0f} | {mine[1]:.2f} | {reference[0]:,.0f} | {ratio:.2f} | {slower:.2f} × | {wanted} | {'yes' if met else '**no**'} |")


# What `cargo bench --bench decide` left behind: group, what, and the goal in nanoseconds (PERFORMANCE.md).
# One rule that asks for a role, one with an expression.
DECISIONS = [("decide, one rule", kind, 1, 1_000) for kind in ("role", "when")]
DECISIONS += [(f"decide, {shape}", kind, rules, goal)
             for shape in ("own host", "one host") for kind in ("glob", "regex")
             for rules, goal in ((10, 1_000), (1_000, 2_000), (10_000, 4_000))]
COMPILES = [(what, shape, 10_000, goal) for what, goal in (("compile", 150_000_000), ("load", 150_000_000)) for shape in ("own host", "one host")]


def criterion(folder):
    """The table of the decision alone, from criterion's own files."""
    lines = []
    for group, what, rules, goal in DECISIONS + COMPILES:
        estimates = folder / group / what / str(rules) / "new/estimates.json"
        if not estimates.exists():
            sys.exit(f"{estimates} is missing; `cargo bench --bench decide` writes it, and ./dev bench runs that first")
        nanoseconds = json.loads(estimates.read_text())["median"]["point_estimate"]
        shown = (lambda value: f"{value / 1e6:,.0f} ms") if goal > 1e6 else (lambda value: f"{value:,.0f} ns")
        met = "yes" if nanoseconds <= goal else "**no**"
        lines.append(f"| {group}, {what} | {rules:,} | {shown(nanoseconds)} | ≤ {shown(goal)} | {met} |")
    return "\n".join(lines)


def processor():
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=ROOT / "target/release/postern", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write benches/RESULTS.md")
    options = parser.parse_args()
    # Programs run in folders of their own.
    options.binary = options.binary.resolve()
    decisions = criterion(options.binary.parent.parent / "criterion")
    for program in ("wrk", "nginx", "taskset", "openssl", "haproxy", ENVOY):
        if not shutil.which(program):
            sys.exit(f"{program} is missing; ./dev bench installs it")

    examples = options.binary.parent / "examples"
    table = []
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as folder:
        machine = Machine(pathlib.Path(folder))
        try:
            upstream = machine.nginx("upstream", 1, """
                server { listen 127.0.0.1:@PORT@ reuseport; location / { default_type text/plain; return 200 "hello from the upstream\\n"; } }""")
            hyper, pingora, through = free_port(), free_port(), free_port()
            machine.start("bare_hyper", 0, [examples / "bare_hyper", f"127.0.0.1:{hyper}"], hyper)
            machine.start("bare_pingora", 0, [examples / "bare_pingora", f"127.0.0.1:{pingora}"], pingora)
            machine.start("bare_pingora_proxy", 0,
                          [examples / "bare_pingora", f"127.0.0.1:{through}", f"127.0.0.1:{upstream}"], through)
            issuer = Issuer(machine.folder)
            few, many, most = (Postern(machine, options.binary, f"postern_{count}", count, upstream)
                               for count in (50, 1_000, 10_000))
            # Limits that are far away.
            limited = Postern(machine, options.binary, "postern_limited", 50, upstream, limits=limits.POLICIES)
            logged = Postern(machine, options.binary, "postern_logged", 50, upstream, access=machine.folder / "access.log")
            trusting = Postern(machine, options.binary, "postern_issuer", 50, upstream, more=issuer.setting())
            haproxy, envoy = free_port(), free_port()
            machine.start("haproxy", 0, issuer.haproxy(haproxy, upstream), haproxy)
            machine.start("envoy", 0, issuer.envoy(ENVOY, envoy, upstream), envoy)
            auth_request = machine.nginx("nginx_auth", 0, f"""
                upstream app {{ server 127.0.0.1:{upstream}; keepalive 64; }}
                upstream postern {{ server 127.0.0.1:{few.forward_auth}; keepalive 64; }}
                server {{
                    listen 127.0.0.1:@PORT@;
                    location / {{
                        auth_request /authz;
                        auth_request_set $remote_user_header $upstream_http_remote_user;
                        proxy_set_header Remote-User $remote_user_header;
                        proxy_set_header Host $host; proxy_http_version 1.1; proxy_set_header Connection "";
                        proxy_pass http://app;
                    }}
                    location = /authz {{
                        internal; proxy_pass http://postern/api/authz/auth-request;
                        proxy_http_version 1.1; proxy_set_header Connection "";
                        proxy_pass_request_body off; proxy_set_header Content-Length "";
                        proxy_set_header X-Original-URL http://{APP}$request_uri;
                        proxy_set_header X-Original-Method $request_method;
                        proxy_set_header X-Forwarded-For $remote_addr;
                    }}
                }}""")

            print("forward_auth")
            url, headers = few.asked()
            asked = measure({
                "bare hyper": (f"http://127.0.0.1:{hyper}/api/authz/forward-auth", headers),
                "bare pingora": (f"http://127.0.0.1:{pingora}/api/authz/forward-auth", headers),
                "postern, 50 rules": (url, headers),
                "postern, 1,000 rules": many.asked(),
                "postern, 10,000 rules": most.asked(),
                "postern, 1,000 rules, reloaded twice a second": (*many.asked(), many.reloading),
                "postern, 50 rules, access log to a file": logged.asked(),
                "bare hyper, asked with a JWT": (f"http://127.0.0.1:{hyper}/api/authz/forward-auth", trusting.asked(issuer.rs256)[1]),
                "postern, 50 rules, JWT (EdDSA)": trusting.asked(issuer.eddsa),
                "postern, 50 rules, JWT (RS256)": trusting.asked(issuer.rs256),
            }, options.rounds, options.seconds)
            fifty = asked["postern, 50 rules"]
            row(table, "forward-auth answer, cached session, 50 rules / bare hyper", fifty, asked["bare hyper"], 0.80, 1.2)
            row(table, "the same / bare pingora", fifty, asked["bare pingora"], 1.00, 1.2)
            row(table, "1,000 rules / 50 rules", asked["postern, 1,000 rules"], fifty, 0.95)
            row(table, "10,000 rules / 50 rules", asked["postern, 10,000 rules"], fifty, 0.90)
            # No request failed, or the load would have ended the benchmark.
            row(table, "1,000 rules, reloaded twice a second / left alone", asked["postern, 1,000 rules, reloaded twice a second"],
                asked["postern, 1,000 rules"], 0.0, 2.0)
            row(table, "access log to a file / without", asked["postern, 50 rules, access log to a file"], fifty, 0.90)

            for algorithm in ("EdDSA", "RS256"):
                row(table, f"forward-auth answer, cached JWT ({algorithm}), 50 rules / bare hyper",
                    asked[f"postern, 50 rules, JWT ({algorithm})"], asked["bare hyper, asked with a JWT"], 0.75)

            print("edge")
            url, headers = few.proxied()
            proxied = measure({
                "bare pingora, passing through": (f"http://127.0.0.1:{through}/dashboards/home?panel=3", headers),
                "nginx + auth_request to postern": (f"http://127.0.0.1:{auth_request}/dashboards/home?panel=3", headers),
                "postern, 50 rules": (url, headers),
                "postern, 50 rules and a limit": limited.proxied(),
                "postern, 1,000 rules": many.proxied(),
                "postern, 10,000 rules": most.proxied(),
                "postern, 50 rules, JWT (RS256)": trusting.proxied(issuer.rs256),
                "haproxy, jwt_verify RS256": (f"http://127.0.0.1:{haproxy}/dashboards/home?panel=3", trusting.proxied(issuer.rs256)[1]),
                "envoy, jwt_authn RS256 with its cache": (f"http://127.0.0.1:{envoy}/dashboards/home?panel=3", trusting.proxied(issuer.rs256)[1]),
            }, options.rounds, options.seconds)
            fifty = proxied["postern, 50 rules"]
            with_limit = proxied["postern, 50 rules and a limit"]
            row(table, "edge, session + 50 rules + a limit + header injection / bare pingora passing through", with_limit,
                proxied["bare pingora, passing through"], 0.92, 1.2)
            row(table, "the same without the limit / bare pingora passing through", fifty, proxied["bare pingora, passing through"], 0.92, 1.2)
            row(table, "edge, session + 50 rules + header injection / nginx proxy_pass + auth_request to Postern, all on one core", fifty,
                proxied["nginx + auth_request to postern"], 1.00)
            row(table, "edge, 1,000 rules / 50 rules", proxied["postern, 1,000 rules"], fifty, 0.95)
            row(table, "edge, 10,000 rules / 50 rules", proxied["postern, 10,000 rules"], fifty, 0.90)
            by_token = proxied["postern, 50 rules, JWT (RS256)"]
            row(table, "edge, JWT (RS256) + 50 rules + header injection / HAProxy jwt_verify", by_token, proxied["haproxy, jwt_verify RS256"], 1.00)
            row(table, "the same / Envoy jwt_authn with its cache", by_token, proxied["envoy, jwt_authn RS256 with its cache"], 2.00)
            ready = many.until_ready
            machine.stop()

            print("limits")
            limiting = limits.measure(machine, options.binary, upstream, options.rounds, options.seconds)
            machine.stop()

            print("sessions")
            scale = sessions.measure(machine, options.binary, upstream, options.rounds, options.seconds)
            machine.stop()
            scale += fleet.measure(machine, options.binary, upstream, {
                "one PostgreSQL": f"database: '{machine.postgres(1)}'",
                "one PostgreSQL and one Redis": f"database: '{machine.postgres(1, 'postgres-beside-redis')}', sessions: '{machine.redis(1)}'",
            })
        finally:
            machine.stop()

    text = f"""# Results

Written by `./dev bench` on {datetime.date.today()}. {processor()}; server on one core, wrk -t1 -c64 and the upstream (nginx) on
the other; medians of {options.rounds} rounds of {options.seconds} s in which all programs take turns. Only ratios are to be compared with other runs.

| what / reference | req/s | p99 ms | reference req/s | ratio | p99 ratio | goal | met |
|---|---|---|---|---|---|---|---|
""" + "\n".join(table) + f"""

Start to ready with 1,000 rules on SQLite, pinned to one core: {ready * 1000:.0f} ms (goal: ≤ 150 ms).

Sessions, many and of a fleet (a node each on a core of its own, the store and the client beside them):

| what | measured | goal | met |
|---|---|---|---|
""" + "\n".join(scale) + f"""

Limits (the server on a core of its own, Redis beside the client and the upstream; where it is about three nodes they share their core):

| what | measured | goal | met |
|---|---|---|---|
""" + "\n".join(limiting) + f"""

The decision alone (criterion, `benches/decide.rs`; the last rule of each set matches; warm, medians):

| what | rules | time | goal | met |
|---|---|---|---|---|
{decisions}
"""
    print(text)
    if options.write:
        target = ROOT / "benches/RESULTS.md"
        notes = ""
        if target.exists() and "\n## Notes\n" in target.read_text():
            notes = "\n## Notes\n" + target.read_text().split("\n## Notes\n", 1)[1]
        target.write_text(text + notes)


if __name__ == "__main__":
    main()
