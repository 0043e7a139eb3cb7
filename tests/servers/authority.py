# SPDX-License-Identifier: MIT
"""A certificate authority of our own, by the openssl command."""
import ssl
import subprocess


class Authority:
    def __init__(self, folder):
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
                 "-out", "ca.pem", "-days", "2", "-subj", "/CN=test CA")

    def run(self, *args):
        subprocess.run(["openssl", *args], cwd=self.folder, check=True,
                       capture_output=True)

    def certificate(self, name, names, days="2"):
        """(certificate, key): files for these names."""
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                 "-subj", f"/CN={name}")
        (self.folder / "ext").write_text("subjectAltName=" + names)
        self.run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem",
                 "-CAkey", "ca.key", "-CAcreateserial", "-days", days,
                 "-extfile", "ext", "-out", f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def context(self, name, names, days="2", alpn=()):
        """A server context with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate(name, names, days))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context
