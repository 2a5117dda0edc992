"""A provider for a simulated cloud, written from the .proto files alone."""

import argparse, contextlib, hashlib, ipaddress, json, os, re, signal, sqlite3, sys, threading, time, uuid
from concurrent import futures
from typing import Any, Callable, Iterator

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from actuator.discovery.v1 import discovery_pb2, discovery_pb2_grpc
from actuator.v1 import cluster_pb2 as cluster, cluster_pb2_grpc
from actuator.v1 import common_pb2 as common
from actuator.v1 import errors_pb2 as errors
from actuator.v1 import identity_pb2 as identity, identity_pb2_grpc
from actuator.v1 import machine_pb2 as machine, machine_pb2_grpc

NAME, VERSION, PREFIX = "python", "0.1.0", "python-cloud:///"
BOOT_SECONDS, DELETE_SECONDS = 0.1, 0.1
ZONES = ["zone-a", "zone-b"]
SIZES = {"small": (1000, 2 << 30), "large": (4000, 16 << 30)}
IMAGES = {"snakeos-1", "snakeos-2"}
MAX_BOOTSTRAP_BYTES, MAX_MUTATIONS, THREADS = 64 * 1024, 32, 96

# Every error says why (a registered reason, each with its own code) and what it left behind.
CODES = {
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_CONFIG": grpc.StatusCode.INVALID_ARGUMENT,
    "UNSUPPORTED_SCHEMA_VERSION": grpc.StatusCode.INVALID_ARGUMENT,
    "BOOTSTRAP_TOO_LARGE": grpc.StatusCode.INVALID_ARGUMENT,
    "MALFORMED_PROVIDER_ID": grpc.StatusCode.INVALID_ARGUMENT,
    "LIMIT_EXCEEDED": grpc.StatusCode.INVALID_ARGUMENT,
    "RESOURCE_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "DEPENDENCY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "KEY_CONFLICT": grpc.StatusCode.ALREADY_EXISTS,
    "CREDENTIALS_INVALID": grpc.StatusCode.UNAUTHENTICATED,
    "TOO_MANY_IN_FLIGHT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DEPENDENTS_EXIST": grpc.StatusCode.FAILED_PRECONDITION,
    "CLUSTER_NOT_READY": grpc.StatusCode.FAILED_PRECONDITION,
    "REPLACE_REQUIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "STALE_FENCING_EPOCH": grpc.StatusCode.FAILED_PRECONDITION,
    "OWNERSHIP_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "STALE_GENERATION": grpc.StatusCode.ABORTED,
    "PAGE_TOKEN_EXPIRED": grpc.StatusCode.ABORTED,
    "PROVIDER_BUG": grpc.StatusCode.INTERNAL,
}


class Problem(Exception):
    """A refusal. All of them here come before anything is changed: their effect is NONE."""

    def __init__(self, reason: str, message: str, fields: list[tuple[str, str]] = []) -> None:
        super().__init__(message)
        self.reason, self.message, self.fields = reason, message[:300], fields[:5]

    def status(self) -> Any:
        effect = errors.EFFECT_UNKNOWN if self.reason == "PROVIDER_BUG" else errors.EFFECT_NONE
        details: list[Any] = [
            error_details_pb2.ErrorInfo(domain="actuator.v1", reason=self.reason),
            errors.OperationOutcome(effect=effect),
        ]
        if self.fields:
            bad = error_details_pb2.BadRequest()
            for field, words in self.fields:
                bad.field_violations.add(field=field[:128], description=words[:128])
            details.append(bad)
        status = status_pb2.Status(code=CODES[self.reason].value[0], message=self.message)
        for detail in details:
            status.details.add().Pack(detail)
        return rpc_status.to_status(status)


def field_problem(field: str, words: str) -> Problem:
    return Problem("INVALID_FIELD", f"{field}: {words}", [(field, words)])


# What users may write. The same tables are the published JSON Schema and the judge.
KINDS = {
    "PythonClusterConfig": {
        "cidr": {"type": "string", "x-cidr": True, "x-immutable": True},
        "description": {"type": "string", "maxLength": 200},
    },
    "PythonMachineConfig": {
        "size": {"type": "string", "enum": sorted(SIZES), "x-immutable": True},
        "image": {"type": "string", "x-immutable": True},
        "diskGiB": {"type": "integer", "minimum": 10, "maximum": 4096},
    },
}
REQUIRED = {"PythonClusterConfig": ["cidr"], "PythonMachineConfig": ["size"]}
SCHEMA_VERSION = "v1"


def schema(kind: str) -> bytes:
    return json.dumps({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": KINDS[kind],
        "required": REQUIRED[kind],
        "additionalProperties": False,
    }, sort_keys=True).encode()


def known_kind(kind: str, version: str) -> None:
    if kind not in KINDS:
        raise field_problem("kind", f"there is no config kind {kind[:64]!r}; there are {', '.join(KINDS)}")
    if version != SCHEMA_VERSION:
        raise Problem("UNSUPPORTED_SCHEMA_VERSION", f"{kind} has the version {SCHEMA_VERSION} only")


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def judge_value(rule: dict[str, Any], value: Any) -> str | None:
    """What is wrong with one value; None when nothing is."""
    if rule["type"] == "integer":
        if not isinstance(value, int) or isinstance(value, bool):
            return "must be an integer"
        if not rule["minimum"] <= value <= rule["maximum"]:
            return f"{value} is not between {rule['minimum']} and {rule['maximum']}"
        return None
    if not isinstance(value, str):
        return "must be a string"
    if "enum" in rule and value not in rule["enum"]:
        return f"must be one of {', '.join(rule['enum'])}"
    if len(value) > rule.get("maxLength", 256):
        return "is too long"
    if rule.get("x-cidr"):
        try:
            ipaddress.ip_network(value)
        except ValueError:
            return "must be an address range such as 10.0.0.0/16"
    return None


def judge(config: common.OpaqueConfig) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Reads a config: its values, and what is wrong where (as JSON pointers)."""
    if len(config.json) > 256 * 1024:
        raise Problem("LIMIT_EXCEEDED", "config.json: at most 256 KiB are allowed")
    known_kind(config.kind, config.schema_version)
    if config.sha256 != hashlib.sha256(config.json).digest():
        raise field_problem("config.sha256", "is not the SHA-256 of the config's bytes")
    try:
        text = config.json.decode("utf-8")
        values = json.loads(text, object_pairs_hook=no_duplicates, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        return {}, [("", f"is no JSON of ours: {str(error)[:100]}")]
    if not isinstance(values, dict):
        return {}, [("", "must be a JSON object")]
    rules, wrong = KINDS[config.kind], []
    for key, value in values.items():
        pointer = "/" + key.replace("~", "~0").replace("/", "~1")
        words = judge_value(rules[key], value) if key in rules else "there is no such field"
        if words:
            wrong.append((pointer, words))
    wrong += [("/" + key, "is missing") for key in REQUIRED[config.kind] if key not in values]
    return values, wrong


def valid(config: common.OpaqueConfig, kind: str) -> dict[str, Any]:
    if config.kind != kind:
        raise field_problem("spec.config.kind", f"must be {kind}")
    values, wrong = judge(config)
    if wrong:
        raise Problem("INVALID_CONFIG", "; ".join(f"{at} {words}" for at, words in wrong[:3]), wrong)
    return values


def replaced(kind: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The fields that change and cannot change in place."""
    return [key for key, rule in KINDS[kind].items() if rule.get("x-immutable") and old.get(key) != new.get(key)]


class Cloud:
    """The simulated cloud: one SQLite file, so that `kill -9` loses nothing. Time does the rest:
    what was made runs a moment later, what was deleted is gone a moment later."""

    def __init__(self, path: str) -> None:
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("""CREATE TABLE IF NOT EXISTS resources (
            kind TEXT, management TEXT, cluster TEXT, key TEXT, id TEXT, disk TEXT, digest BLOB, generation INTEGER,
            config TEXT, ownership BLOB, zone TEXT, made REAL, deleted REAL,
            PRIMARY KEY (kind, management, cluster, key))""")
        self.db.execute("CREATE TABLE IF NOT EXISTS epochs (management TEXT PRIMARY KEY, epoch INTEGER)")

    def run(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self.lock:
            return self.db.execute(sql, values).fetchall()

    def find(self, kind: str, owner: common.Ownership, key: str) -> sqlite3.Row | None:
        """What was ever made or deleted with this key: the key is the identity."""
        found = self.run("SELECT * FROM resources WHERE kind=? AND management=? AND cluster=? AND key=?",
                         kind, owner.management_cluster_id, owner.cluster_uid, key)
        return found[0] if found else None

    def make(self, kind: str, owner: common.Ownership, key: str, digest: bytes, generation: int,
             config: dict[str, Any], zone: str) -> None:
        """Makes it, tagged with key and owner in the same step."""
        new = uuid.uuid4().hex
        self.run("INSERT INTO resources VALUES (?,?,?,?,?,?,?,?,?,?,?,?,NULL)", kind, owner.management_cluster_id,
                 owner.cluster_uid, key, f"{PREFIX}{kind}-{new}", f"disk-{new}", digest, generation,
                 json.dumps(config), owner.SerializeToString(), zone, time.time())

    def bury(self, kind: str, owner: common.Ownership, key: str) -> None:
        """Deletes it, or notes that a later create of this key comes too late."""
        self.run("INSERT OR IGNORE INTO resources (kind, management, cluster, key, deleted) VALUES (?,?,?,?,0)",
                 kind, owner.management_cluster_id, owner.cluster_uid, key)
        self.run("UPDATE resources SET deleted=? WHERE kind=? AND management=? AND cluster=? AND key=?"
                 " AND deleted IS NULL", time.time(), kind, owner.management_cluster_id, owner.cluster_uid, key)

    def fence(self, management: str, epoch: int) -> None:
        found = self.run("SELECT epoch FROM epochs WHERE management=?", management)
        if epoch and found and epoch < found[0]["epoch"]:
            raise Problem("STALE_FENCING_EPOCH", "another core has taken the lead")
        if epoch:
            self.run("INSERT INTO epochs VALUES (?,?) ON CONFLICT DO UPDATE SET epoch=max(epoch,excluded.epoch)",
                     management, epoch)


def gone(row: sqlite3.Row | None) -> bool:
    return row is None or (row["deleted"] is not None and time.time() >= row["deleted"] + DELETE_SECONDS)


def duration(seconds: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(nanos=int(seconds * 1e9))


def machine_status(row: sqlite3.Row) -> machine.MachineStatus:
    config = json.loads(row["config"])
    running = time.time() >= row["made"] + BOOT_SECONDS
    status = machine.MachineStatus(
        provider_id=row["id"], failure_domain=row["zone"], machine_type=config["size"],
        observed_generation=row["generation"], observed_digest=row["digest"],
        phase=machine.MACHINE_PHASE_RUNNING if running else machine.MACHINE_PHASE_PROVISIONING,
        artefacts=[common.Artefact(type="instance", id=row["id"]), common.Artefact(type="disk", id=row["disk"])])
    if row["deleted"] is not None:
        status.phase = machine.MACHINE_PHASE_DELETING
    if status.phase == machine.MACHINE_PHASE_RUNNING:
        number = int(row["disk"][-6:], 16)
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        status.addresses.add(type=machine.MACHINE_ADDRESS_TYPE_INTERNAL_IP, address=address)
    else:
        status.poll_after.CopyFrom(duration(0.1))
    return status


def cluster_status(row: sqlite3.Row) -> cluster.ClusterStatus:
    return cluster.ClusterStatus(
        provider_id=row["id"], observed_generation=row["generation"], observed_digest=row["digest"],
        phase=cluster.CLUSTER_PHASE_READY if row["deleted"] is None else cluster.CLUSTER_PHASE_DELETING,
        endpoint=common.Endpoint(host=f"{row['disk'][5:17]}.python-cloud.example", port=6443),
        failure_domains=[cluster.FailureDomain(name=zone, control_plane=True) for zone in ZONES],
        artefacts=[common.Artefact(type="network", id=row["id"])])


def bounded(message: Any, path: str = "") -> None:
    """The sizes of the protocol: strings 256 bytes, ids 512, provider_state 16 KiB."""
    for field, value in message.ListFields():
        at = f"{path}.{field.name}" if path else field.name
        if field.name == "provider_state" and len(value) > 16 * 1024:
            raise Problem("LIMIT_EXCEEDED", f"{at}: at most 16 KiB are allowed")
        if field.is_repeated or field.name in ("cluster", "config"):
            continue
        if field.message_type:
            bounded(value, at)
        elif isinstance(value, str) and field.name != "provider_id" and len(value.encode()) > 256:
            raise Problem("LIMIT_EXCEEDED", f"{at}: at most 256 bytes are allowed")


def check_owner(owner: common.Ownership, at: str) -> None:
    for name in ("management_cluster_id", "cluster_uid", "object_uid"):
        if not getattr(owner, name):
            raise field_problem(f"{at}.{name}", "is missing")


def check_key(key: str, at: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", key):
        raise field_problem(at, "must be 1 to 64 of [A-Za-z0-9._-]")


def check_meta(request: Any) -> None:
    if not request.HasField("meta"):
        raise field_problem("meta", "is missing")
    check_key(request.meta.idempotency_key, "meta.idempotency_key")
    if request.meta.generation < 0:
        raise field_problem("meta.generation", "must not be below zero")


def check_ref(request: Any) -> common.ResourceRef:
    if not request.HasField("ref"):
        raise field_problem("ref", "is missing")
    ref = request.ref
    check_owner(ref.ownership, "ref.ownership")
    check_key(ref.idempotency_key, "ref.idempotency_key")
    if ref.provider_id and not re.fullmatch(re.escape(PREFIX) + r"(machine|cluster)-[0-9a-f]{32}", ref.provider_id):
        raise Problem("MALFORMED_PROVIDER_ID", "ref.provider_id: is none of this cloud")
    return ref


def check_digest(spec: Any) -> None:
    if len(spec.digest) != 32:
        raise field_problem("spec.digest", "must have 32 bytes")


class Provider(identity_pb2_grpc.IdentityServiceServicer, cluster_pb2_grpc.ClusterServiceServicer,
               machine_pb2_grpc.MachineServiceServicer, discovery_pb2_grpc.DiscoveryServiceServicer):
    def __init__(self, cloud: Cloud, tokens: set[bytes]) -> None:
        self.cloud, self.tokens, self.instance_id = cloud, tokens, uuid.uuid4().hex
        self.slots = threading.BoundedSemaphore(MAX_MUTATIONS)
        self.keys: dict[tuple[str, ...], tuple[threading.Lock, int]] = {}
        self.guard = threading.Lock()

    def authenticate(self, request: Any) -> None:
        if request.credentials.data.entries.get("token") not in self.tokens:
            raise Problem("CREDENTIALS_INVALID", "the cloud does not accept the token of the credentials")

    @contextlib.contextmanager
    def mutation(self, kind: str, owner: common.Ownership, meta: common.OperationMeta) -> Iterator[None]:
        """One mutation at a time for each key, and so many at a time in all."""
        if not self.slots.acquire(blocking=False):
            raise Problem("TOO_MANY_IN_FLIGHT", f"{MAX_MUTATIONS} mutations are running; try again")
        name = (kind, owner.management_cluster_id, owner.cluster_uid, meta.idempotency_key)
        with self.guard:
            lock, users = self.keys.get(name, (threading.Lock(), 0))
            self.keys[name] = (lock, users + 1)
        try:
            with lock:
                self.cloud.fence(owner.management_cluster_id, meta.fencing_epoch)
                yield
        finally:
            with self.guard:
                lock, users = self.keys[name]
                self.keys[name] = (lock, users - 1)
                if users == 1:
                    del self.keys[name]
            self.slots.release()

    # Discovery and identity: answered from memory.

    def GetProtocols(self, request: Any, context: Any) -> Any:
        return discovery_pb2.GetProtocolsResponse(
            name=NAME, version=VERSION, instance_id=self.instance_id,
            protocols=[discovery_pb2.Protocol(package="actuator.v1", stability=discovery_pb2.STABILITY_STABLE)])

    def GetInfo(self, request: Any, context: Any) -> Any:
        return identity.GetInfoResponse(
            name=NAME, vendor_version=VERSION, instance_id=self.instance_id,
            capabilities=identity.Capabilities(
                list_machines=identity.ListMachinesCapability(), list_clusters=identity.ListClustersCapability(),
                machine_types=identity.MachineTypesCapability()),
            limits=identity.Limits(max_concurrent_mutations=MAX_MUTATIONS, max_bootstrap_bytes=MAX_BOOTSTRAP_BYTES,
                                   max_page_size=500),
            timings=identity.Timings(poll_interval=duration(0.2)),
            config_kinds=[
                identity.ConfigKind(kind="PythonClusterConfig", target=identity.CONFIG_TARGET_CLUSTER,
                                    schema_versions=[SCHEMA_VERSION]),
                identity.ConfigKind(kind="PythonMachineConfig", target=identity.CONFIG_TARGET_MACHINE,
                                    schema_versions=[SCHEMA_VERSION])],
            credential_keys=[identity.CredentialKey(name="token", description="The token of your account.")],
            provider_id_prefix=PREFIX, bootstrap_formats=[common.BOOTSTRAP_FORMAT_CLOUD_CONFIG])

    def Probe(self, request: Any, context: Any) -> Any:
        return identity.ProbeResponse(readiness=identity.READINESS_READY)

    def GetConfigSchema(self, request: Any, context: Any) -> Any:
        known_kind(request.kind, request.schema_version)
        text = schema(request.kind)
        return identity.GetConfigSchemaResponse(json_schema=text, sha256=hashlib.sha256(text).digest())

    def ValidateConfig(self, request: Any, context: Any) -> Any:
        if not request.HasField("config"):
            raise field_problem("config", "is missing")
        values, wrong = judge(request.config)
        if request.mode == identity.VALIDATION_MODE_PREFLIGHT:
            self.authenticate(request)
            if values.get("image", "snakeos-1") not in IMAGES:
                wrong.append(("/image", "there is no such image"))
        answer = identity.ValidateConfigResponse()
        for at, words in wrong[:100]:
            answer.diagnostics.add(severity=identity.SEVERITY_ERROR, json_pointer=at, message=words)
        if request.HasField("previous") and not wrong:
            for key in replaced(request.config.kind, judge(request.previous)[0], values):
                answer.diagnostics.add(severity=identity.SEVERITY_WARNING, json_pointer="/" + key,
                                       message="this change needs a replacement", requires_replacement=True)
        return answer

    # What machines and clusters have in common.

    def create(self, kind: str, config_kind: str, request: Any, zone: str = "") -> sqlite3.Row:
        check_meta(request)
        for name in ("ownership", "spec"):
            if not request.HasField(name):
                raise field_problem(name, "is missing")
        check_owner(request.ownership, "ownership")
        check_digest(request.spec)
        config = valid(request.spec.config, config_kind)
        self.authenticate(request)
        owner, key, meta = request.ownership, request.meta.idempotency_key, request.meta
        with self.mutation(kind, owner, meta):
            row = self.cloud.find(kind, owner, key)
            if row is None:
                if kind == "machine":
                    if self.cluster_of(owner) is None:
                        raise Problem("CLUSTER_NOT_READY", "the machine's cluster is not there")
                    if config.get("image", "snakeos-1") not in IMAGES:
                        raise Problem("DEPENDENCY_NOT_FOUND", f"there is no image {config['image']}")
                self.cloud.make(kind, owner, key, request.spec.digest, meta.generation, config, zone)
            elif row["deleted"] is not None:
                raise Problem("KEY_CONFLICT", "what had this key was deleted; a key is never used again")
            elif row["digest"] != request.spec.digest:
                raise Problem("KEY_CONFLICT", "the key is taken by another spec")
            elif meta.generation < row["generation"]:
                raise Problem("STALE_GENERATION", "a newer generation was seen")
            return self.cloud.find(kind, owner, key)

    def cluster_of(self, owner: common.Ownership) -> sqlite3.Row | None:
        found = self.cloud.run("SELECT * FROM resources WHERE kind='cluster' AND management=? AND cluster=?"
                               " AND deleted IS NULL", owner.management_cluster_id, owner.cluster_uid)
        return found[0] if found else None

    def update(self, kind: str, config_kind: str, request: Any) -> sqlite3.Row:
        check_meta(request)
        ref = check_ref(request)
        if ref.idempotency_key != request.meta.idempotency_key:
            raise field_problem("ref.idempotency_key", "is another one than meta has")
        if not request.HasField("spec"):
            raise field_problem("spec", "is missing")
        check_digest(request.spec)
        config = valid(request.spec.config, config_kind)
        self.authenticate(request)
        with self.mutation(kind, ref.ownership, request.meta):
            row = self.owned(kind, ref)
            if row is None or row["deleted"] is not None:
                raise Problem("RESOURCE_NOT_FOUND", f"there is no such {kind}")
            if request.meta.generation < row["generation"]:
                raise Problem("STALE_GENERATION", "a newer generation was seen")
            changed = replaced(config_kind, json.loads(row["config"]), config)
            if changed:
                raise Problem("REPLACE_REQUIRED", f"{', '.join(changed)} cannot change in place")
            self.cloud.run("UPDATE resources SET config=?, digest=?, generation=? WHERE id=?", json.dumps(config),
                           request.spec.digest, request.meta.generation, row["id"])
            return self.cloud.find(kind, ref.ownership, ref.idempotency_key)

    def owned(self, kind: str, ref: common.ResourceRef) -> sqlite3.Row | None:
        row = self.cloud.find(kind, ref.ownership, ref.idempotency_key)
        if ref.provider_id and row is not None and row["id"] not in (None, ref.provider_id):
            raise Problem("OWNERSHIP_MISMATCH", "ref.provider_id belongs to another key")
        return row

    def delete(self, kind: str, request: Any, answer: Callable[..., Any]) -> Any:
        check_meta(request)
        ref = check_ref(request)
        self.authenticate(request)
        with self.mutation(kind, ref.ownership, request.meta):
            self.owned(kind, ref)
            if kind == "cluster" and self.cloud.run(
                    "SELECT 1 FROM resources WHERE kind='machine' AND management=? AND cluster=? AND id NOT NULL"
                    " AND deleted IS NULL", ref.ownership.management_cluster_id, ref.ownership.cluster_uid):
                raise Problem("DEPENDENTS_EXIST", "the cluster has machines")
            self.cloud.bury(kind, ref.ownership, ref.idempotency_key)
            if gone(self.cloud.find(kind, ref.ownership, ref.idempotency_key)):
                return answer(state=common.DELETION_STATE_GONE)
            return answer(state=common.DELETION_STATE_IN_PROGRESS, message="the cloud is removing it",
                          poll_after=duration(DELETE_SECONDS))

    def exists(self, kind: str, request: Any, answer: Callable[..., Any], status: Callable[..., Any]) -> Any:
        ref = check_ref(request)
        self.authenticate(request)
        row = self.owned(kind, ref)
        if row is None or gone(row):
            return answer(presence=common.PRESENCE_ABSENT)
        presence = common.PRESENCE_PRESENT if row["deleted"] is None else common.PRESENCE_TERMINATING
        return answer(presence=presence, status=status(row))

    def page(self, kind: str, request: Any) -> tuple[list[sqlite3.Row], str]:
        if not request.management_cluster_id:
            raise field_problem("management_cluster_id", "is missing")
        self.authenticate(request)
        size, after = page_of(request.page)
        rows = self.cloud.run(
            "SELECT rowid, * FROM resources WHERE kind=? AND management=? AND rowid>? AND id NOT NULL"
            " AND (deleted IS NULL OR deleted>?) AND (?='' OR cluster=?) ORDER BY rowid LIMIT ?", kind,
            request.management_cluster_id, after, time.time() - DELETE_SECONDS,
            getattr(request, "cluster_uid", ""), getattr(request, "cluster_uid", ""), size + 1)
        return rows[:size], f"after-{rows[size - 1]['rowid']}" if len(rows) > size else ""

    # Clusters.

    def CreateCluster(self, request: Any, context: Any) -> Any:
        return cluster.CreateClusterResponse(status=cluster_status(self.create("cluster", "PythonClusterConfig", request)))

    def UpdateCluster(self, request: Any, context: Any) -> Any:
        return cluster.UpdateClusterResponse(status=cluster_status(self.update("cluster", "PythonClusterConfig", request)))

    def DeleteCluster(self, request: Any, context: Any) -> Any:
        return self.delete("cluster", request, cluster.DeleteClusterResponse)

    def ClusterExists(self, request: Any, context: Any) -> Any:
        return self.exists("cluster", request, cluster.ClusterExistsResponse, cluster_status)

    def ListClusters(self, request: Any, context: Any) -> Any:
        rows, token = self.page("cluster", request)
        return cluster.ListClustersResponse(next_page_token=token, clusters=[
            cluster.ListedCluster(ownership=common.Ownership.FromString(row["ownership"]), idempotency_key=row["key"],
                                  status=cluster_status(row)) for row in rows])

    # Machines.

    def CreateMachine(self, request: Any, context: Any) -> Any:
        data = request.bootstrap.data
        if len(data) > MAX_BOOTSTRAP_BYTES:
            raise Problem("BOOTSTRAP_TOO_LARGE", f"bootstrap.data: at most {MAX_BOOTSTRAP_BYTES} bytes are allowed")
        if request.HasField("bootstrap") and request.bootstrap.sha256 != hashlib.sha256(data).digest():
            raise field_problem("bootstrap.sha256", "is not the SHA-256 of the data")
        zone = request.spec.failure_domain or ZONES[0]
        if zone not in ZONES:
            raise field_problem("spec.failure_domain", f"must be one of {', '.join(ZONES)}")
        return machine.CreateMachineResponse(
            status=machine_status(self.create("machine", "PythonMachineConfig", request, zone)))

    def UpdateMachine(self, request: Any, context: Any) -> Any:
        return machine.UpdateMachineResponse(status=machine_status(self.update("machine", "PythonMachineConfig", request)))

    def DeleteMachine(self, request: Any, context: Any) -> Any:
        return self.delete("machine", request, machine.DeleteMachineResponse)

    def MachineExists(self, request: Any, context: Any) -> Any:
        return self.exists("machine", request, machine.MachineExistsResponse, machine_status)

    def ListMachines(self, request: Any, context: Any) -> Any:
        rows, token = self.page("machine", request)
        answer = machine.ListMachinesResponse(next_page_token=token)
        for row in rows:
            listed = answer.machines.add(idempotency_key=row["key"], status=machine_status(row))
            listed.ownership.ParseFromString(row["ownership"])
            listed.created_at.FromNanoseconds(int(row["made"] * 1e9))
        return answer

    def ListMachineTypes(self, request: Any, context: Any) -> Any:
        self.authenticate(request)
        size, after = page_of(request.page)
        names = [name for name in sorted(SIZES) if request.name in ("", name)]
        answer = machine.ListMachineTypesResponse(
            next_page_token=f"after-{after + size}" if len(names) > after + size else "")
        for name in names[after:after + size]:
            cpu, memory = SIZES[name]
            kind = answer.machine_types.add(name=name, cpu_millis=cpu, memory_bytes=memory, architecture="amd64")
            for zone in ZONES:
                kind.availability.add(failure_domain=zone, available=True)
        return answer


def page_of(page: common.PageRequest) -> tuple[int, int]:
    """How many items, and after which."""
    if not 0 <= page.page_size <= 500:
        raise field_problem("page.page_size", "must be between 0 and 500")
    found = re.fullmatch(r"(?:after-([0-9]{1,15}))?", page.page_token)
    if not found:
        raise Problem("PAGE_TOKEN_EXPIRED", "page.page_token: is none of this provider")
    return page.page_size or 500, int(found[1] or 0)


class Errors(grpc.ServerInterceptor):
    """Turns what the methods raise into statuses as the protocol wants them."""

    def intercept_service(self, proceed: Any, details: Any) -> Any:
        handler = proceed(details)
        if handler is None or not handler.unary_unary or not details.method.startswith("/actuator."):
            return handler

        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                bounded(request)
                return handler.unary_unary(request, context)
            except Problem as problem:
                context.abort_with_status(problem.status())
            except NotImplementedError:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "this capability is not advertised")
            except Exception as error:  # never its text: it may hold what the caller sent
                print(f"defect in {details.method}: {type(error).__name__}", file=sys.stderr, flush=True)
                context.abort_with_status(Problem("PROVIDER_BUG", f"a defect: {type(error).__name__}").status())

        return grpc.unary_unary_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)


SERVICES = ["actuator.discovery.v1.DiscoveryService", "actuator.v1.IdentityService", "actuator.v1.ClusterService",
            "actuator.v1.MachineService"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="unix:///path/to/actuator.sock")
    parser.add_argument("--state-dir", default=os.environ.get("ACTUATOR_STATE_DIR", "."))
    flags = parser.parse_args()
    os.umask(0o007)  # before the socket is made: it is for our user and group alone
    os.makedirs(flags.state_dir, exist_ok=True)
    os.makedirs(os.path.dirname(flags.listen.removeprefix("unix://")), mode=0o750, exist_ok=True)
    tokens = {token.encode() for token in os.environ.get("CLOUD_TOKENS", "demo-token").split(",")}
    provider = Provider(Cloud(os.path.join(flags.state_dir, "cloud.db")), tokens)
    server = grpc.server(
        futures.ThreadPoolExecutor(THREADS), interceptors=[Errors()], maximum_concurrent_rpcs=512,
        options=[("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # the core pings every 20 s,
                 ("grpc.keepalive_permit_without_calls", 1), ("grpc.so_reuseport", 0)])  # with no call open too
    discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(provider, server)
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(provider, server)
    cluster_pb2_grpc.add_ClusterServiceServicer_to_server(provider, server)
    machine_pb2_grpc.add_MachineServiceServicer_to_server(provider, server)
    healthy = health.HealthServicer()
    for service in ["", *SERVICES]:
        healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_insecure_port(flags.listen)
    server.start()
    print(f"listening on {flags.listen}", file=sys.stderr, flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    ended.wait()
    server.stop(grace=5).wait()


if __name__ == "__main__":
    main()
