#!/usr/bin/env python3
"""Writes src/http/protobuf/messages.txt from the published .proto files of Kubernetes.

Usage: protobuf-table.py MODULES VERSION, where MODULES holds api@VERSION and apimachinery@VERSION, as
`go mod download k8s.io/api@VERSION k8s.io/apimachinery@VERSION` puts them into the module cache.
"""

import pathlib
import re
import sys

FILES = {
    "core": "api/core/v1", "apps": "api/apps/v1", "events": "api/events/v1", "coordination": "api/coordination/v1",
    "policy": "api/policy/v1", "rbac": "api/rbac/v1", "authorization": "api/authorization/v1",
    "authentication": "api/authentication/v1", "meta": "apimachinery/pkg/apis/meta/v1",
    "runtime": "apimachinery/pkg/runtime", "resource": "apimachinery/pkg/api/resource",
    "intstr": "apimachinery/pkg/util/intstr",
}
ROOTS = {
    "core": "ConfigMap Event Namespace Node Pod Secret ServiceAccount",
    "apps": "DaemonSet", "events": "Event", "coordination": "Lease", "policy": "Eviction PodDisruptionBudget",
    "rbac": "ClusterRole ClusterRoleBinding Role RoleBinding",
    "authorization": "LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview",
    "authentication": "SelfSubjectReview TokenRequest TokenReview", "meta": "DeleteOptions",
}
# Fields whose own fields stand in their place in JSON.
INLINE = {
    "Volume.volumeSource", "Probe.handler", "EphemeralContainer.ephemeralContainerCommon",
    *(f"{message}.localObjectReference" for message in (
        "ConfigMapEnvSource", "ConfigMapKeySelector", "ConfigMapProjection", "ConfigMapVolumeSource",
        "SecretEnvSource", "SecretKeySelector", "SecretProjection")),
}
SCALARS = {"string", "bytes", "bool", "int32", "int64", "double"}


def main() -> None:
    modules, version = pathlib.Path(sys.argv[1]), sys.argv[2]
    packages, messages = {}, {}
    texts = {}
    for short, folder in FILES.items():
        module, _, rest = folder.partition("/")
        text = (modules / f"{module}@{version}" / rest / "generated.proto").read_text()
        texts[short] = re.sub(r"//[^\n]*", "", text)
        packages[re.search(r"^package ([\w.]+);", texts[short], re.M).group(1)] = short
    for short, text in texts.items():
        for name, body in re.findall(r"^message (\w+) \{(.*?)^\}", text, re.M | re.S):
            fields = re.findall(r"^\s*(optional|repeated|required)?\s*(map<[^>]*>|[\w.]+) (\w+) = (\d+)", body, re.M)
            messages[f"{short}.{name}"] = [
                (int(number), field, label, resolve(kind, short, packages)) for label, kind, field, number in fields]
    wanted = [f"{short}.{name}" for short, names in ROOTS.items() for name in names.split()]
    done = set()
    while wanted:
        name = wanted.pop()
        if name in done:
            continue
        done.add(name)
        wanted += [kind for _, _, _, kind in messages[name] for kind in kind.split(",") if kind not in SCALARS]
    out = ["# Field numbers of the Kubernetes API, from the generated.proto files of k8s.io/api and k8s.io/apimachinery",
           f"# {version} (Apache-2.0), made by scripts/protobuf-table.py. Messages, then fields: number, name, label, type."]
    for name in sorted(done):
        out.append(name)
        for number, field, label, kind in sorted(messages[name]):
            if f"{name.split('.')[1]}.{field}" in INLINE:
                label = "inline"
            elif "," in kind:
                label, kind = "map", kind.split(",")[1]
            elif label != "repeated":
                label = "one"
            out.append(f" {number} {field} {label} {kind}")
    target = pathlib.Path(__file__).parent.parent / "src/http/protobuf/messages.txt"
    target.write_text("\n".join(out) + "\n")


def resolve(kind: str, short: str, packages: dict) -> str:
    if kind.startswith("map<"):
        key, value = (part.strip() for part in kind[4:-1].split(","))
        return f"{key},{resolve(value, short, packages)}"
    if kind in SCALARS:
        return kind
    package, _, name = kind.lstrip(".").rpartition(".")
    return f"{packages[package] if package else short}.{name}"


main()
