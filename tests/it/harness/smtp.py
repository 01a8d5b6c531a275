"""A mail server of a test, by aiosmtpd: STARTTLS and a password are required. Puts every mail that it takes into a folder.

smtp.py PORT FOLDER CERTIFICATE KEY USER PASSWORD
"""

import json
import pathlib
import signal
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

port, folder, certificate, key, user, password = sys.argv[1:]
folder = pathlib.Path(folder)


class Taken:
    count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 there is no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        about = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "tls": session.ssl is not None}
        about["user"] = session.auth_data
        (folder / f"{self.count}.json").write_text(json.dumps(about))
        new = folder / f"{self.count}.new"
        new.write_bytes(envelope.content)
        new.rename(folder / f"{self.count}.eml")
        return "250 taken"


def authenticated(server, session, envelope, mechanism, data):
    if (data.login, data.password) != (user.encode(), password.encode()):
        return AuthResult(success=False, handled=False)
    return AuthResult(success=True, auth_data=data.login.decode())


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
controller = Controller(
    Taken(),
    hostname="127.0.0.1",
    port=int(port),
    tls_context=context,
    require_starttls=True,
    auth_required=True,
    authenticator=authenticated,
)
controller.start()
signal.pause()
