"""An issuer of JWTs for the benchmark, and the proxies that verify its tokens beside Postern's edge. Used by run.py."""

import base64
import json
import subprocess
import time

ISSUER, AUDIENCE = "https://idp.bench.localhost", "postern"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Keys made by openssl, a key set, and a token by each key, good for an hour."""

    def __init__(self, folder):
        self.folder = folder / "issuer"
        self.folder.mkdir()
        self.openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.folder / "rsa.pem")
        self.openssl("genpkey", "-algorithm", "ED25519", "-out", self.folder / "ed.pem")
        self.public = self.folder / "rsa.pub.pem"
        self.openssl("pkey", "-in", self.folder / "rsa.pem", "-pubout", "-out", self.public)
        modulus = self.openssl("rsa", "-in", self.folder / "rsa.pem", "-noout", "-modulus").decode().strip().split("=")[1]
        # The key itself stands at the end of its DER.
        point = self.openssl("pkey", "-in", self.folder / "ed.pem", "-pubout", "-outform", "DER")[-32:]
        self.key_set = json.dumps({"keys": [
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "n": encoded(bytes.fromhex(modulus)), "e": "AQAB"},
            {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "ed", "x": encoded(point)},
        ]})
        self.jwks = self.folder / "jwks.json"
        self.jwks.write_text(self.key_set)
        self.rs256 = self.token({"alg": "RS256", "kid": "rsa", "typ": "JWT"}, "dgst", "-sha256", "-sign", self.folder / "rsa.pem")
        self.eddsa = self.token({"alg": "EdDSA", "kid": "ed", "typ": "JWT"},
                                "pkeyutl", "-sign", "-rawin", "-inkey", self.folder / "ed.pem", "-in")

    @staticmethod
    def openssl(*arguments):
        return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout

    def token(self, header, *sign):
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "7d1f2c3a-5b6e-4f70-8a91-b2c3d4e5f607", "iat": now, "exp": now + 3600,
                  "jti": "5e0c1a52-8f6d-4a3b-9a63-0b6d1d1f3c11", "azp": "bench", "typ": "Bearer", "scope": "openid profile email",
                  "name": "Bench Mark", "email": "bench@example.com", "email_verified": True, "groups": ["staff", "bench"]}
        message = ".".join(encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
        text = self.folder / "message"
        text.write_text(message)
        return f"{message}.{encoded(self.openssl(*sign, text))}"

    def setting(self):
        """For Postern's configuration; the prefix lets no store be asked."""
        return (f"tokens: {{ trusted_issuers: [{{ issuer: '{ISSUER}', audiences: [{AUDIENCE}], jwks_file: '{self.jwks}', "
                f"prefix: 'idp:' }}] }}")

    def haproxy(self, port, upstream):
        """The checks of its documentation for `jwt_verify`: algorithm, issuer, audience, expiry, signature."""
        config = self.folder / "haproxy.cfg"
        config.write_text(f"""
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend edge
    bind 127.0.0.1:{port}
    http-request set-var(txn.bearer) http_auth_bearer
    http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
    http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')
    http-request set-var(txn.aud) var(txn.bearer),jwt_payload_query('$.aud')
    http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
    http-request deny deny_status 401 unless {{ var(txn.iss) -m str {ISSUER} }}
    http-request deny deny_status 401 unless {{ var(txn.aud) -m str {AUDIENCE} }}
    http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{self.public}") 1 }}
    http-request set-header Remote-User %[var(txn.bearer),jwt_payload_query('$.sub')]
    default_backend app
backend app
    http-reuse always
    server app 127.0.0.1:{upstream}
""")
        return ["haproxy", "-db", "-f", config]

    def envoy(self, program, port, upstream):
        """`jwt_authn` with its cache of verified tokens."""
        extension = "type.googleapis.com/envoy.extensions.filters"
        provider = {
            "issuer": ISSUER, "audiences": [AUDIENCE], "local_jwks": {"inline_string": self.key_set}, "forward": True,
            "jwt_cache_config": {"jwt_cache_size": 1000},
            "claim_to_headers": [{"header_name": "remote-user", "claim_name": "sub"}],
        }
        address = lambda number: {"socket_address": {"address": "127.0.0.1", "port_value": number}}
        filters = [
            {"name": "envoy.filters.http.jwt_authn", "typed_config": {
                "@type": f"{extension}.http.jwt_authn.v3.JwtAuthentication", "providers": {"idp": provider},
                "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "idp"}}]}},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{extension}.http.router.v3.Router"}},
        ]
        manager = {
            "@type": f"{extension}.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "edge",
            "route_config": {"virtual_hosts": [{"name": "app", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
            "http_filters": filters,
        }
        config = self.folder / "envoy.json"
        config.write_text(json.dumps({"static_resources": {
            "listeners": [{"name": "edge", "address": address(port), "filter_chains": [
                {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
            "clusters": [{"name": "app", "load_assignment": {"cluster_name": "app", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]}}],
        }}))
        return [program, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
