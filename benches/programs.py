"""The programs that the benchmarks start, and the load on them."""

import contextlib
import http.client
import json
import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

APP, PORTAL, DOMAIN = "app.bench.localhost", "auth.bench.localhost", "bench.localhost"
PASSWORD = os.urandom(12).hex()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process, what):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{what} ended with status {process.returncode} before it listened")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.005)
    sys.exit(f"{what} does not listen on port {port} after 30 s")


class Machine:
    """Programs that run until the measuring is over."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def start(self, name, processor, command, port, **more):
        log = open(self.folder / f"{name}.log", "wb")
        process = subprocess.Popen(
            ["taskset", "-c", str(processor), *map(str, command)], stdout=log, stderr=log, **more)
        self.running.append(process)
        wait_for(port, process, name)
        return process

    def stop(self):
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        self.running.clear()

    def nginx(self, name, processor, body):
        """An nginx of one worker; `body` stands inside `http {}`."""
        port = free_port()
        prefix = self.folder / name
        (prefix / "logs").mkdir(parents=True)
        (prefix / "nginx.conf").write_text(f"""
worker_processes 1; daemon off; pid {prefix}/pid; error_log {prefix}/logs/error.log error;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
    client_body_temp_path {prefix}/body; proxy_temp_path {prefix}/proxy; fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi; scgi_temp_path {prefix}/scgi;
    {body.replace("@PORT@", str(port))}
}}
""")
        self.start(name, processor, ["nginx", "-p", prefix, "-c", prefix / "nginx.conf"], port)
        return port


    def postgres(self, processor, name="postgres"):
        """The URL of a database on a PostgreSQL with its own settings: what is acknowledged is on the disk."""
        port, data = free_port(), self.folder / name
        owner = {}
        if os.getuid() == 0:
            # It refuses to run as root.
            owner = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid}
            self.folder.chmod(0o711)
        data.mkdir()
        if owner:
            shutil.chown(data, owner["user"], owner["group"])
        server = shutil.which("postgres") or max(map(str, pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")))
        initdb = pathlib.Path(server).with_name("initdb")
        subprocess.run([initdb, "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D", data / "data"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/", **owner)
        self.start(f"{name}-server", processor, [server, "-D", data / "data", "-p", port, "-k", data, "-h", "127.0.0.1"], port, cwd="/", **owner)
        return f"postgres://postgres@127.0.0.1:{port}/postgres"


    def redis(self, processor, name="redis"):
        """The URL of a Redis that writes down every change."""
        port, data = free_port(), self.folder / name
        data.mkdir()
        self.start(f"{name}-server", processor, ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", data, "--appendonly", "yes"], port)
        return f"redis://127.0.0.1:{port}"


def rules(count):
    """`count` rules; the last one lets the request of the benchmark pass for one_factor. Half of the others have a host each,
    half share the application's host with a path each."""
    lines = ["default: deny", "rules:"]
    for number in range(count - 1):
        if number % 2:
            where = f"domain: h{number}.{DOMAIN}"
        else:
            where = f"domain: {APP}, path: ['/team-{number}/**']"
        lines.append(f"  - {{ name: r{number}, {where}, subject: 'group:g{number}', policy: one_factor }}")
    lines.append(f"  - {{ name: all staff, domain: {APP}, subject: 'group:staff', policy: one_factor }}")
    return "\n".join(lines) + "\n"


class Postern:
    """`storage`: the keys of `storage:` where they are not an SQLite and a key of its own. `fill`: called with its folder before it
    starts."""

    def __init__(self, machine, binary, name, rule_count, upstream, access="off", more="", storage=None, processor=0, fill=None,
                 user=True, limits=""):
        self.edge, self.forward_auth, admin = free_port(), free_port(), free_port()
        folder = machine.folder / name
        self.admin, self.policies, self.rule_count = admin, folder / "policies/rules.yaml", rule_count
        (folder / "policies").mkdir(parents=True)
        # Beside the configuration, as everybody has it: what is written there would wake whoever watches the configuration.
        (folder / "data").mkdir()
        self.policies.write_text(rules(rule_count) + limits)
        storage = storage or f"database: 'sqlite://{folder}/data/postern.db', key_file: '{folder}/key'"
        config = folder / "postern.yaml"
        config.write_text(f"""
server:
  listeners:
    - {{ address: '127.0.0.1:{self.edge}', serves: edge }}
    - {{ address: '127.0.0.1:{self.forward_auth}', serves: forward_auth, trusted_proxies: [127.0.0.1/32] }}
  admin: 127.0.0.1:{admin}
  source_limit: none
log: {{ level: warn, access: {access} }}
portal: {{ url: 'http://{PORTAL}' }}
session: {{ cookies: [{{ domain: {DOMAIN} }}] }}
storage: {{ {storage} }}
upstreams: {{ app: {{ servers: ['http://127.0.0.1:{upstream}'] }} }}
routes: [{{ name: app, host: {APP}, upstream: app }}]
policies: {folder}/policies
{more}
""")
        if user:
            subprocess.run([binary, "user", "add", "bench", "-c", config, "--name", "Bench Mark", "--email",
                            "bench@example.com", "--groups", "staff,bench", "--password-stdin"],
                           input=PASSWORD.encode() + b"\n", check=True, stdout=subprocess.DEVNULL)
        if fill:
            fill(folder)
        began = time.monotonic()
        self.process = machine.start(name, processor, [binary, "serve", "-c", config], admin, cwd=folder)
        self.until_ready = None
        while self.until_ready is None:
            connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                self.until_ready = time.monotonic() - began
            connection.close()
        self.cookie = self.sign_in().split(";")[0]

    def sign_in(self):
        """Both cookies, the gate's first."""
        connection = http.client.HTTPConnection("127.0.0.1", self.forward_auth, timeout=30)
        connection.request("POST", "/auth/login", json.dumps({"username": "bench", "password": PASSWORD}),
                           {"Host": PORTAL, "Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"sign-in for the benchmark failed: {answer.status} {answer.read()}")
        cookies = sorted((value.split(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie"),
                         key=lambda cookie: not cookie.startswith("postern_session="))
        return "; ".join(cookies)

    def memory(self):
        """Resident bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024

    def processor_time(self):
        """Seconds that its threads had a processor so far: those that serve requests, and those of SQLite, which has its own."""
        times = {True: 0, False: 0}
        for thread in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                name, _, rest = (thread / "stat").read_text().partition("(")[2].rpartition(")")
                used = rest.split()
                times[name.startswith("sqlx-sqlite")] += int(used[11]) + int(used[12])
        return times[False] / os.sysconf("SC_CLK_TCK"), times[True] / os.sysconf("SC_CLK_TCK")

    def metric(self, name):
        """0 where it was never counted."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(rf"^{re.escape(name)} (\d+)", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def reloads(self):
        """How often the configuration was taken anew."""
        return self.metric('postern_config_reload_total{status="success"}')

    @contextlib.contextmanager
    def reloading(self):
        """Rules that change twice a second, for as long as this lasts."""
        done, before = threading.Event(), self.reloads()
        # Made beforehand: it is not what is measured, and the processors are in use.
        text = rules(self.rule_count)

        def change():
            os.sched_setaffinity(0, {1})
            number = 0
            while not done.wait(0.5):
                number += 1
                new = self.policies.with_suffix(".new")
                new.write_text(f"# {number}\n" + text)
                new.rename(self.policies)
        thread = threading.Thread(target=change)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if self.reloads() == before:
            sys.exit("the rules changed under load, and nothing was reloaded")

    def shown(self, token):
        """What says who is asking: a JWT, or the session's cookie."""
        return {"Authorization": f"Bearer {token}"} if token else {"Cookie": self.cookie}

    def asked(self, token=None):
        """The request of a forward-auth proxy."""
        return (f"http://127.0.0.1:{self.forward_auth}/api/authz/forward-auth",
                {"X-Forwarded-Proto": "http", "X-Forwarded-Host": APP, "X-Forwarded-Method": "GET",
                 "X-Forwarded-Uri": "/dashboards/home?panel=3", "X-Forwarded-For": "192.0.2.7", **self.shown(token)})

    def proxied(self, token=None):
        """The request of a browser or a program at the edge."""
        return f"http://127.0.0.1:{self.edge}/dashboards/home?panel=3", {"Host": APP, **self.shown(token)}


def load(url, headers, seconds, script=(), may_be_refused=False):
    """Requests a second and the 99th percentile in milliseconds; any answer but 200 ends the benchmark, unless it may be. `script`: a file of Lua for
    wrk and its arguments."""
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{seconds}s", "--latency"]
    if script:
        command += ["-s", script[0]]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    if script:
        url = [url, "--", *map(str, script[1:])]
    else:
        url = [url]
    printed = subprocess.run([*command, *url], capture_output=True, text=True, check=True).stdout
    if ("Non-2xx" in printed and not may_be_refused) or "Socket errors" in printed:
        sys.exit(f"the load on {url} met errors:\n{printed}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1])
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", printed).groups()
    return rate, float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


