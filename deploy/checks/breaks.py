"""Mistakes made on purpose. Each must be found, by the words that `expected` has."""

import shutil
from dataclasses import dataclass

BASE = "kubernetes/base"
EKS = "kubernetes/overlays/eks"
SET = f"{BASE}/stateful-set.yaml"
TOML = f"{EKS}/vault.toml"


@dataclass(frozen=True)
class Break:
    """In `file`, `old` becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    expected: str
    # What only one tool finds: not tried without it.
    needs: str = "kustomize"

    def apply(self, deploy, scratch):
        """A broken copy."""
        copy = shutil.copytree(deploy, scratch / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
        text = (copy / self.file).read_text()
        if self.old not in text:
            raise ValueError(f"{self.name}: {self.file} has no {self.old!r} to break")
        (copy / self.file).write_text(text.replace(self.old, self.new, 1))
        return copy


ALL = [
    Break("image without version", f"{EKS}/kustomization.yaml", "newTag: 0.1.0", "newTag: latest", "has no version"),
    Break("root file system", SET, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFilesystem"),
    Break("capabilities", SET, "drop: [ALL]", "drop: [NET_RAW]", "capabilities must be dropped"),
    Break("root user", SET, "runAsUser: 65532", "runAsUser: 0", "runAsUser"),
    Break("no seccomp", SET, "type: RuntimeDefault", "type: Unconfined", "seccompProfile"),
    Break("misspelt field", SET, "podManagementPolicy", "podManagmentPolicy", "podManagmentPolicy", "schemas"),
    Break("key for others", SET, "defaultMode: 0440", "defaultMode: 0444", "others can read it"),
    Break("no such secret", SET, "secretName: phi-vault-db", "secretName: phi-vault-dbx", "Secret phi-vault-dbx"),
    Break("no such key", SET, "key: tls.key", "key: server.key", "has no key server.key"),
    Break("no such account", SET, "serviceAccountName: phi-vault", "serviceAccountName: vault", "ServiceAccount vault"),
    Break("no such port", SET, "port: metrics", "port: health", "no port named health"),
    Break("kubelet's gRPC probe", SET, "tcpSocket:\n              port: grpc", "grpc:\n              port: 8443", "gRPC probe"),
    Break("short grace", SET, "PeriodSeconds: 60", "PeriodSeconds: 30", "too short"),
    Break("swappable", SET, "memory: 1Gi\n            limits", "memory: 512Mi\n            limits", "swapped"),
    Break("zones", SET, "topology.kubernetes.io/zone", "kubernetes.io/os", "spread over zones"),
    Break("sub-path", SET, "mountPath: /etc/phi-vault/access", "mountPath: /etc/phi-vault/access\n              subPath: x", "subPath"),
    Break("selector", f"{BASE}/disruption.yaml", "      app.kubernetes.io/name: phi-vault\n", "      app.kubernetes.io/name: vault\n", "does not match the pods"),
    Break("open network", f"{EKS}/network.yaml", "10.0.80.0/24", "0.0.0.0/0", "whole internet"),
    Break("no deny", f"{BASE}/network.yaml", "podSelector: {}", "podSelector:\n    matchLabels:\n      a: b", "denies everything"),
    Break("pod security", f"{BASE}/namespace.yaml", "enforce: restricted", "enforce: privileged", "pod security"),
    Break("server's name", f"{BASE}/certificates.yaml", "    - phi-vault.phi-vault.svc\n    - phi-vault.phi-vault.svc.cluster.local\n", "", "does not name the service phi-vault"),
    Break("client without id", "kubernetes/pki/clients.yaml", "spiffe://prod.phi-vault.internal/billing", "https://billing", "exactly one URI"),
    Break("forgotten file", f"{BASE}/kustomization.yaml", "  - disruption.yaml\n", "", "is in no kustomization"),
    Break("doubled key", f"{BASE}/namespace.yaml", "  name: phi-vault\n", "  name: phi-vault\n  name: other\n", "doubled key"),
    Break("no TOML", TOML, "[listen]", "[listen", "vault.toml"),
    Break("misspelt option", TOML, "drain_timeout", "drain_timout", "drain_timout", "vault-server"),
    Break("unmounted file", TOML, "/etc/phi-vault/db/password", "/etc/phi-vault/pw/password", "nothing is mounted"),
    Break("other port", TOML, "0.0.0.0:8443", "0.0.0.0:8444", "the container's port grpc"),
    Break("database without TLS", TOML, 'tls = "verify-full"', 'tls = "off"', "verify-full"),
    Break("nameless", TOML, 'instance_env = "POD_NAME"', 'instance_env = "POD_NAM"', "no container sets POD_NAM"),
    Break("shared name", TOML, 'lease = "10s"', 'lease = "10s"\ninstance = "vault-0"', "one name for all instances"),
    Break("database's port", TOML, "amazonaws.com:5432", "amazonaws.com:5433", "lets the vault out"),
    Break("role", f"{EKS}/principals.toml", '["service"]', '["servant"]', "servant", "vault-server"),
    Break("unknown caller", f"{EKS}/principals.toml", "internal/billing", "internal/biling", "no certificate in pki/"),
    Break("other vault's keys", f"{EKS}/iam-policy.json", "6f1c0a52", "7f1c0a52", "not bound to this vault"),
    Break("root image", "Containerfile", "USER 65532:65532", "USER root", "USER", "nothing"),
    Break("shell form", "Containerfile", 'ENTRYPOINT ["/usr/local/bin/vault-server"]', "ENTRYPOINT vault-server", "ENTRYPOINT", "nothing"),
    Break("secret in the image", "Containerfile", "EXPOSE", "ENV DB_PASSWORD=x\nEXPOSE", "looks like a secret", "nothing"),
    Break("unlocked build", "Containerfile", "build --locked", "build", "cargo build --locked", "nothing"),
    Break("missing flags", "Containerfile", "COPY .cargo .cargo\n", "", ".cargo is not copied", "nothing"),
    Break("latest toolchain", "Containerfile", "rust:1.95-slim-trixie", "rust:latest", "without a version", "nothing"),
]
