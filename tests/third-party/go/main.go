// Command provider-harbour is a whole provider in one file, written from the .proto files
// alone: a simulated cloud, the harbour, with everything that the protocol has.
//
// Read it from the top: what this provider is, what users write, what the cloud holds and how
// that survives a kill, what every request has to pass, then one function for each RPC.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	discovery "outrigger/tests/third-party/go/pb/actuator/discovery/v1"
	pb "outrigger/tests/third-party/go/pb/actuator/v1"
)

// What this provider is.
const (
	name     = "harbour"
	version  = "1.0.0"
	idPrefix = "harbour:///"

	maxMutations = 256       // at a time
	maxBootstrap = 64 * 1024 // bytes
	maxPage      = 100       // items
	pollInterval = 50 * time.Millisecond
	bookmarks    = 15 * time.Second // at least every 30 s
)

// The sizes of the protocol, in bytes.
const (
	maxString     = 256
	maxProviderID = 512
	maxConfig     = 256 * 1024
	maxState      = 16 * 1024
	maxText       = 1024
	maxChunk      = 64 * 1024
	maxMessage    = 4 * 1024 * 1024
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "audit" {
		os.Exit(audit(os.Args[2]))
	}
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "provider-harbour: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "", "where to serve: unix:///absolute/path")
	state := flag.String("state-dir", os.Getenv("ACTUATOR_STATE_DIR"), "the folder of the journal")
	boot := flag.Duration("boot-delay", 50*time.Millisecond, "how long a machine boots")
	leave := flag.Duration("delete-delay", 50*time.Millisecond, "how long a deletion takes")
	latency := flag.Duration("api-latency", 5*time.Millisecond, "how long the cloud takes to accept a change")
	reflect := flag.Bool("reflection", false, "serve gRPC reflection")
	flag.Parse()

	harbour, err := openCloud(*state)
	if err != nil {
		return err
	}
	harbour.boot, harbour.leave, harbour.latency = *boot, *leave, *latency
	listener, err := listenOn(*listen)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &provider{
		cloud:    harbour,
		instance: randomID(),
		slots:    make(chan struct{}, maxMutations),
		stopped:  ctx.Done(),
	}
	// Secrets of the environment, not of the command line, which everybody can read.
	if tokens := os.Getenv("HARBOUR_TOKENS"); tokens != "" {
		p.tokens = strings.Split(tokens, ",")
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(p.unary),
		grpc.StreamInterceptor(p.stream),
		// The core pings every 20 s, idle or not; what grpc-go allows by itself is one in five minutes.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	discovery.RegisterDiscoveryServiceServer(server, p)
	pb.RegisterIdentityServiceServer(server, p)
	pb.RegisterClusterServiceServer(server, p)
	pb.RegisterEndpointServiceServer(server, p)
	pb.RegisterMachineServiceServer(server, p)
	healthy := health.NewServer()
	for service := range server.GetServiceInfo() {
		healthy.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(server, healthy)
	if *reflect {
		reflection.Register(server)
	}
	go func() {
		<-ctx.Done()
		healthy.Shutdown()
		// Who still watches health is cut off.
		forced := time.AfterFunc(5*time.Second, server.Stop)
		defer forced.Stop()
		server.GracefulStop()
	}()
	slog.Info("serving", "endpoint", *listen, "instance", p.instance)
	if err := server.Serve(listener); err != nil {
		return err
	}
	p.working.Wait()
	return nil
}

// listenOn makes the socket for the owner and the group alone.
func listenOn(endpoint string) (net.Listener, error) {
	path, found := strings.CutPrefix(endpoint, "unix://")
	if !found || !filepath.IsAbs(path) || len(path) > 100 {
		return nil, fmt.Errorf("--listen %q is no unix:///absolute/path of at most 100 bytes", endpoint)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	// A socket that a killed process left is in the way; anything else is not ours. The lock on
	// the state folder has shown that no other process of this provider runs.
	if found, err := os.Lstat(path); err == nil {
		if found.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	defer syscall.Umask(syscall.Umask(0o117))
	return net.Listen("unix", path)
}

func randomID() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // ends the process rather than fail
	return hex.EncodeToString(id)
}

// --- What users write ---

// A kind of config. Its schema, what is wrong with a config and which changes need a replacement
// all come from one list of fields, so that they agree.
type kind struct {
	name   string
	target pb.ConfigTarget
	fields []field
}

// A field of a config.
type field struct {
	name, about string
	required    bool
	initial     any // when left out
	change      change
	// What it is: an object of fields, an integer, a map of strings, else a string.
	fields   []field
	min, max int64
	labels   bool
	oneOf    []string
	valid    func(string) bool
}

// Whether a field can be changed in place.
type change int

const (
	anyChange change = iota
	growsOnly
	noChange
)

var (
	machineKind = kind{"HarbourMachineConfig", pb.ConfigTarget_CONFIG_TARGET_MACHINE, []field{
		{name: "size", about: "What size of machine.", required: true, oneOf: sizeNames(), change: noChange},
		{name: "image", about: "What it boots.", initial: images[0], change: noChange},
		{name: "diskGiB", about: "Its disk, in GiB.", initial: int64(20), min: 10, max: 4096, change: growsOnly},
		{name: "labels", about: "What it is labelled with.", labels: true},
	}}
	clusterKind = kind{"HarbourClusterConfig", pb.ConfigTarget_CONFIG_TARGET_CLUSTER, []field{
		{name: "network", about: "The network of its machines.", fields: []field{
			{name: "cidr", about: "Its range.", initial: "10.0.0.0/16", valid: isPrefix, change: noChange},
		}},
		{name: "port", about: "The port of the API server.", initial: int64(6443), min: 1, max: 65535, change: noChange},
		{name: "labels", about: "What it is labelled with.", labels: true},
	}}
	kinds = []kind{machineKind, clusterKind}

	images = []string{"harbour-os-1", "harbour-os-2"}
	zones  = []string{"quay-a", "quay-b", "quay-c"}
	sizes  = []*pb.MachineType{ // by name, as pages go on after one
		size("berth.large", 8, 32, 180_000),
		size("berth.medium", 4, 16, 90_000),
		size("berth.small", 2, 4, 30_000),
	}
)

func size(name string, cpus, gib, price int64) *pb.MachineType {
	made := &pb.MachineType{
		Name: name, CpuMillis: cpus * 1000, MemoryBytes: gib << 30, Architecture: "amd64",
		PriceMicrosPerHour: &price, Currency: "EUR",
	}
	for _, zone := range zones {
		made.Availability = append(made.Availability, &pb.MachineTypeAvailability{FailureDomain: zone, Available: true})
	}
	return made
}

func sizeNames() (names []string) {
	for _, size := range sizes {
		names = append(names, size.Name)
	}
	return names
}

func isPrefix(text string) bool {
	prefix, err := netip.ParsePrefix(text)
	return err == nil && prefix.Masked() == prefix
}

// schema is the JSON Schema of a list of fields.
func schema(fields []field) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range fields {
		made := map[string]any{"type": "string"}
		switch {
		case f.fields != nil:
			made = schema(f.fields)
		case f.max != 0:
			made = map[string]any{"type": "integer", "minimum": f.min, "maximum": f.max}
		case f.labels:
			made = map[string]any{"type": "object", "additionalProperties": made}
		case f.oneOf != nil:
			made["enum"] = f.oneOf
		}
		made["description"] = f.about
		if f.initial != nil {
			made["default"] = f.initial
		}
		properties[f.name] = made
		if f.required {
			required = append(required, f.name)
		}
	}
	return map[string]any{
		"type": "object", "properties": properties, "required": required, "additionalProperties": false,
	}
}

// A problem in a config, at a JSON pointer, or in a request, at a path of fields.
type problem struct{ at, words string }

// read decodes a config. Everything that is wrong with it is told; the values are of use only
// when nothing is.
func (k kind) read(config []byte) (values map[string]any, found []problem) {
	if !utf8.Valid(config) {
		return nil, []problem{{"", "is no UTF-8"}}
	}
	if !json.Valid(config) {
		return nil, []problem{{"", "is no JSON"}}
	}
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber() // a double does not hold every integer
	values, isObject := readJSON(decoder, "", &found).(map[string]any)
	if !isObject {
		return nil, []problem{{"", "is no JSON object"}}
	}
	checkFields(k.fields, values, "", &found)
	return values, found
}

// readJSON reads one value of what is valid JSON. encoding/json alone would take a key that
// stands twice.
func readJSON(decoder *json.Decoder, at string, found *[]problem) any {
	token, _ := decoder.Token()
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for decoder.More() {
			key, _ := decoder.Token()
			name, _ := key.(string)
			if _, twice := object[name]; twice {
				*found = append(*found, problem{pointer(at, name), "stands there twice"})
			}
			object[name] = readJSON(decoder, pointer(at, name), found)
		}
		_, _ = decoder.Token()
		return object
	case json.Delim('['):
		var list []any
		for decoder.More() {
			list = append(list, readJSON(decoder, at, found))
		}
		_, _ = decoder.Token()
		return list
	}
	return token
}

// pointer leads to a key of an object (RFC 6901). One that is too long to be told leads to the object.
func pointer(at, key string) string {
	escaped := strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
	if len(at)+1+len(escaped) > maxString {
		return at
	}
	return at + "/" + escaped
}

func checkFields(fields []field, values map[string]any, at string, found *[]problem) {
	wrong := func(name, format string, args ...any) {
		*found = append(*found, problem{pointer(at, name), cut(fmt.Sprintf(format, args...), maxString)})
	}
	for _, f := range fields {
		value, given := values[f.name]
		if !given {
			if f.required {
				wrong(f.name, "is required and missing")
			}
			continue
		}
		switch object, isObject := value.(map[string]any); {
		case f.fields != nil && isObject:
			checkFields(f.fields, object, pointer(at, f.name), found)
		case f.fields != nil, f.labels && !isObject:
			wrong(f.name, "must be an object")
		case f.labels:
			for _, label := range slices.Sorted(maps.Keys(object)) {
				if _, isText := object[label].(string); !isText {
					*found = append(*found, problem{pointer(pointer(at, f.name), label), "must be a string"})
				}
			}
		case f.max != 0:
			number, _ := value.(json.Number)
			exact, err := strconv.ParseInt(number.String(), 10, 64)
			if err != nil || exact < f.min || exact > f.max {
				wrong(f.name, "is %v; a whole number from %d to %d is allowed", value, f.min, f.max)
			}
		default:
			text, isText := value.(string)
			if !isText || (f.oneOf != nil && !slices.Contains(f.oneOf, text)) || (f.valid != nil && !f.valid(text)) {
				wrong(f.name, "is %v; %s", value, cmp.Or(strings.Join(f.oneOf, ", "), "another string")+" is allowed")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.name == name }) {
			wrong(name, "is unknown")
		}
	}
}

// replacements tells which changes from one config to another cannot be made in place.
func replacements(fields []field, before, after map[string]any, at string) (found []problem) {
	for _, f := range fields {
		if f.fields != nil {
			inner := func(values map[string]any) map[string]any {
				object, _ := values[f.name].(map[string]any)
				return object
			}
			found = append(found, replacements(f.fields, inner(before), inner(after), pointer(at, f.name))...)
			continue
		}
		// As text, a default and a number that was read are the same.
		old, now := fmt.Sprint(cmpOr(before[f.name], f.initial)), fmt.Sprint(cmpOr(after[f.name], f.initial))
		shrinks := func() bool {
			was, _ := strconv.ParseInt(old, 10, 64)
			is, _ := strconv.ParseInt(now, 10, 64)
			return is < was
		}
		if (f.change == noChange && old != now) || (f.change == growsOnly && shrinks()) {
			words := fmt.Sprintf("cannot be changed in place from %s to %s", old, now)
			found = append(found, problem{pointer(at, f.name), cut(words, maxString)})
		}
	}
	return found
}

func cmpOr(value, otherwise any) any {
	if value == nil {
		return otherwise
	}
	return value
}

// text is the string of a config that was found valid.
func (k kind) text(values map[string]any, name string) string {
	for _, f := range k.fields {
		if f.name == name {
			return fmt.Sprint(cmpOr(values[name], f.initial))
		}
	}
	return ""
}

// --- Errors ---

// The gRPC code of each reason that is used here, as errors.proto has it.
var codeOf = map[pb.ErrorReason]codes.Code{
	pb.ErrorReason_ERROR_REASON_PROVIDER_BUG:               codes.Internal,
	pb.ErrorReason_ERROR_REASON_INVALID_FIELD:              codes.InvalidArgument,
	pb.ErrorReason_ERROR_REASON_INVALID_CONFIG:             codes.InvalidArgument,
	pb.ErrorReason_ERROR_REASON_UNSUPPORTED_SCHEMA_VERSION: codes.InvalidArgument,
	pb.ErrorReason_ERROR_REASON_BOOTSTRAP_TOO_LARGE:        codes.InvalidArgument,
	pb.ErrorReason_ERROR_REASON_MALFORMED_PROVIDER_ID:      codes.InvalidArgument,
	pb.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED:             codes.InvalidArgument,
	pb.ErrorReason_ERROR_REASON_RESOURCE_NOT_FOUND:         codes.NotFound,
	pb.ErrorReason_ERROR_REASON_DEPENDENCY_NOT_FOUND:       codes.NotFound,
	pb.ErrorReason_ERROR_REASON_KEY_CONFLICT:               codes.AlreadyExists,
	pb.ErrorReason_ERROR_REASON_CREDENTIALS_INVALID:        codes.Unauthenticated,
	pb.ErrorReason_ERROR_REASON_TOO_MANY_IN_FLIGHT:         codes.ResourceExhausted,
	pb.ErrorReason_ERROR_REASON_DEPENDENTS_EXIST:           codes.FailedPrecondition,
	pb.ErrorReason_ERROR_REASON_CLUSTER_NOT_READY:          codes.FailedPrecondition,
	pb.ErrorReason_ERROR_REASON_REPLACE_REQUIRED:           codes.FailedPrecondition,
	pb.ErrorReason_ERROR_REASON_STALE_FENCING_EPOCH:        codes.FailedPrecondition,
	pb.ErrorReason_ERROR_REASON_OWNERSHIP_MISMATCH:         codes.FailedPrecondition,
	pb.ErrorReason_ERROR_REASON_STALE_GENERATION:           codes.Aborted,
	pb.ErrorReason_ERROR_REASON_PAGE_TOKEN_EXPIRED:         codes.Aborted,
	pb.ErrorReason_ERROR_REASON_RESUME_TOKEN_EXPIRED:       codes.OutOfRange,
	pb.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE:          codes.Unavailable,
}

// A failure is an error of the protocol. Most of them have left nothing behind.
type failure struct {
	reason  pb.ErrorReason
	effect  pb.Effect
	message string
	fields  []problem
}

func refuse(reason pb.ErrorReason, format string, args ...any) *failure {
	return &failure{reason: reason, effect: pb.Effect_EFFECT_NONE, message: fmt.Sprintf(format, args...)}
}

// refuseFor refuses a request for what is wrong with it. A whole status has at most 4 KiB, its
// message counts twice; so not every problem is told.
func refuseFor(reason pb.ErrorReason, found []problem) *failure {
	refused := refuse(reason, "%s: %s", cmp.Or(found[0].at, "the config"), found[0].words)
	if len(found) > 1 {
		refused.message += fmt.Sprintf(", and %d more", len(found)-1)
	}
	refused.fields = found[:min(len(found), 4)]
	return refused
}

func (f *failure) Error() string { return f.message }

// GRPCStatus is what grpc-go sends for an error.
func (f *failure) GRPCStatus() *status.Status {
	plain := status.New(codeOf[f.reason], cut(f.message, maxText))
	details := []protoadapt.MessageV1{
		&errdetails.ErrorInfo{Domain: "actuator.v1", Reason: strings.TrimPrefix(f.reason.String(), "ERROR_REASON_")},
		&pb.OperationOutcome{Effect: f.effect},
	}
	if f.fields != nil {
		bad := &errdetails.BadRequest{}
		for _, field := range f.fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: field.at, Description: field.words,
			})
		}
		details = append(details, bad)
	}
	with, err := plain.WithDetails(details...)
	if err != nil {
		return plain
	}
	return with
}

// cut shortens a text at the end of a character.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// --- The cloud ---

// A resource is a machine or a cluster, as one line of the journal tells it; the last line of a
// key counts. What was deleted stays: a create that comes too late has to find it. Times say
// what becomes of it by itself, so that nothing has to be written when that happens. Values are
// replaced as a whole and never changed, so readers need no lock on them.
type resource struct {
	Cluster    bool      `json:"cluster,omitempty"` // else a machine
	Key        string    `json:"key"`
	Owner      owner     `json:"owner"`
	ID         string    `json:"id,omitempty"` // none: it was deleted before it was made
	Name       string    `json:"name,omitempty"`
	Size       string    `json:"size,omitempty"`
	Zone       string    `json:"zone,omitempty"`
	Address    string    `json:"address,omitempty"`
	Host       string    `json:"host,omitempty"`
	Port       int32     `json:"port,omitempty"`
	Members    []string  `json:"members,omitempty"`
	Config     []byte    `json:"config,omitempty"`
	Digest     []byte    `json:"digest,omitempty"`
	Generation int64     `json:"generation"` // applied
	Seen       int64     `json:"seen"`       // the highest that was seen
	Epoch      int64     `json:"epoch"`      // of the last mutation
	Created    time.Time `json:"created,omitzero"`
	Ready      time.Time `json:"ready,omitzero"`
	GoneAt     time.Time `json:"goneAt,omitzero"` // set by a delete
	revision   uint64    // of the last change, within this process
}

type owner struct {
	Management string `json:"management"`
	Cluster    string `json:"cluster"`
	Object     string `json:"object"`
	Namespace  string `json:"namespace"`
	InCluster  string `json:"clusterName"`
	Name       string `json:"name"`
}

// What a resource is found by. The same key of another management cluster is another resource.
type place struct {
	cluster         bool
	management, key string
}

func (r resource) place() place               { return place{r.Cluster, r.Owner.Management, r.Key} }
func (r resource) isReady(now time.Time) bool { return !now.Before(r.Ready) }
func (r resource) leaves() bool               { return !r.GoneAt.IsZero() }
func (r resource) isGone(now time.Time) bool  { return r.leaves() && !now.Before(r.GoneAt) }

// artefacts are what hangs on a resource; they come and go with it.
func (r resource) artefacts() []*pb.Artefact {
	types := []string{"disk", "network-interface"}
	if r.Cluster {
		types = []string{"network", "load-balancer"}
	}
	var made []*pb.Artefact
	for _, kind := range types {
		made = append(made, &pb.Artefact{Type: kind, Id: kind + "-" + strings.TrimPrefix(r.ID, idPrefix)})
	}
	return made
}

// The cloud. Everything that was acknowledged is in its journal, a file with a line for each
// change, on disk before the answer.
type cloud struct {
	boot, leave, latency time.Duration

	writing sync.Mutex // one line at a time; what a line depends on is decided under it
	journal *os.File
	broken  error // a write that failed; the next process cuts off what it left

	mu       sync.RWMutex // held for moments, never while something is written or waited for
	all      map[place]resource
	epochs   map[string]int64 // the highest fencing epoch by management cluster
	revision uint64
	changed  chan struct{} // closed at the next change
	keys     map[place]*keyLock
}

// A keyLock is held by one mutation of a key and waited for by others.
type keyLock struct {
	sync.Mutex
	users int
}

// openCloud reads the journal of a state folder and keeps other processes away from it.
func openCloud(folder string) (*cloud, error) {
	if folder == "" {
		return nil, errors.New("no state folder; give --state-dir or ACTUATOR_STATE_DIR")
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	journal, err := os.OpenFile(journalOf(folder), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(journal.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s is in use by another process: %w", journal.Name(), err)
	}
	c := &cloud{
		journal: journal,
		all:     map[place]resource{},
		epochs:  map[string]int64{},
		changed: make(chan struct{}),
		keys:    map[place]*keyLock{},
	}
	whole, err := readJournal(journal, c.publish)
	if err != nil {
		return nil, err
	}
	// A crash cut the last line: nobody was told of it.
	return c, journal.Truncate(whole)
}

func journalOf(folder string) string { return filepath.Join(folder, "journal.jsonl") }

// readJournal tells every resource of a journal in order, and how many bytes are whole lines.
func readJournal(journal io.Reader, tell func(resource)) (whole int64, err error) {
	reader := bufio.NewReader(journal)
	for number := 1; ; number++ {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		var r resource
		if err = cmp.Or(err, json.Unmarshal(line, &r)); err != nil {
			return whole, fmt.Errorf("line %d of the journal is damaged: %w", number, err)
		}
		whole += int64(len(line))
		tell(r)
	}
}

// lock keeps other mutations of a key away until the function that it returns is called.
func (c *cloud) lock(at place) (unlock func()) {
	c.mu.Lock()
	held := c.keys[at]
	if held == nil {
		held = &keyLock{}
		c.keys[at] = held
	}
	held.users++
	c.mu.Unlock()
	held.Lock()
	return func() {
		held.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		if held.users--; held.users == 0 {
			delete(c.keys, at)
		}
	}
}

// find returns what a key stands for; a resource that is gone is found too.
func (c *cloud) find(at place) (resource, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	found, known := c.all[at]
	return found, known
}

// list returns the resources of a management cluster that fit, by key.
func (c *cloud) list(clusters bool, management string, fits func(resource) bool) []resource {
	c.mu.RLock()
	var found []resource
	for at, r := range c.all {
		if at.cluster == clusters && at.management == management && fits(r) {
			found = append(found, r)
		}
	}
	c.mu.RUnlock()
	slices.SortFunc(found, func(a, b resource) int { return cmp.Compare(a.Key, b.Key) })
	return found
}

// write makes a change, if `allowed` still says so once no other is being made.
func (c *cloud) write(r resource, allowed func() error) error {
	time.Sleep(c.latency)
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if allowed != nil {
		if err := allowed(); err != nil {
			return err
		}
	}
	if c.broken == nil {
		_, c.broken = c.journal.Write(append(line, '\n'))
	}
	if c.broken == nil {
		c.broken = c.journal.Sync()
	}
	if c.broken != nil {
		slog.Error("the journal cannot be written", "error", c.broken)
		lost := refuse(pb.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE, "the journal of the cloud cannot be written")
		lost.effect = pb.Effect_EFFECT_UNKNOWN
		return lost
	}
	c.publish(r)
	return nil
}

// publish shows a change to readers and watchers.
func (c *cloud) publish(r resource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.show(r)
}

// show does so, and again when time has made another change.
func (c *cloud) show(r resource) {
	c.revision++
	r.revision = c.revision
	c.all[r.place()] = r
	c.epochs[r.Owner.Management] = max(c.epochs[r.Owner.Management], r.Epoch)
	close(c.changed)
	c.changed = make(chan struct{})
	for _, at := range []time.Time{r.Ready, r.GoneAt} {
		if wait := time.Until(at); wait > 0 {
			time.AfterFunc(wait, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				if c.all[r.place()].revision == r.revision {
					c.show(r)
				}
			})
		}
	}
}

// since returns the machines of a management cluster that have changed, oldest change first,
// how far that goes, and what is closed at the next change.
func (c *cloud) since(management string, revision uint64) ([]resource, uint64, <-chan struct{}) {
	c.mu.RLock()
	upTo, changed := c.revision, c.changed
	c.mu.RUnlock()
	found := c.list(false, management, func(r resource) bool { return r.revision > revision && r.ID != "" })
	slices.SortFunc(found, func(a, b resource) int { return cmp.Compare(a.revision, b.revision) })
	return found, upTo, changed
}

// fence refuses a core that another one has taken the lead from.
func (c *cloud) fence(management string, epoch int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != 0 && epoch < c.epochs[management] {
		return refuse(pb.ErrorReason_ERROR_REASON_STALE_FENCING_EPOCH,
			"the fencing epoch %d is behind %d; give up the lead", epoch, c.epochs[management])
	}
	c.epochs[management] = max(c.epochs[management], epoch)
	return nil
}

// audit prints what a journal shows: the live machines by key, what was made twice, what was
// left behind. It works beside a process, and after one that was killed.
func audit(folder string) int {
	live, made := map[place]resource{}, map[place]map[string]bool{}
	journal, err := os.Open(journalOf(folder))
	if err == nil {
		defer journal.Close()
		_, err = readJournal(journal, func(r resource) {
			live[r.place()] = r
			if made[r.place()] == nil {
				made[r.place()] = map[string]bool{}
			}
			if r.ID != "" {
				made[r.place()][r.ID] = true
			}
		})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "provider-harbour: %v\n", err)
		return 2
	}
	now := time.Now()
	maps.DeleteFunc(live, func(_ place, r resource) bool { return r.ID == "" || r.isGone(now) })
	clusters := map[string]bool{}
	for _, r := range live {
		if r.Cluster {
			clusters[r.Owner.Cluster] = true
		}
	}
	report := struct {
		Instances  map[string][]resource `json:"instances"`
		Duplicates []string              `json:"duplicates"`
		Orphans    []resource            `json:"orphans"`
	}{map[string][]resource{}, []string{}, []resource{}}
	for at, ids := range made {
		if len(ids) > 1 {
			report.Duplicates = append(report.Duplicates, at.key)
		}
	}
	for _, r := range live {
		if r.Cluster {
			continue
		}
		report.Instances[r.Key] = append(report.Instances[r.Key], r)
		if !clusters[r.Owner.Cluster] {
			report.Orphans = append(report.Orphans, r)
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(report); err != nil || len(report.Duplicates)+len(report.Orphans) > 0 {
		return 1
	}
	return 0
}

// --- What every request has to pass ---

// The provider: a function for each RPC, further down.
type provider struct {
	discovery.UnimplementedDiscoveryServiceServer
	pb.UnimplementedIdentityServiceServer
	pb.UnimplementedClusterServiceServer
	pb.UnimplementedEndpointServiceServer
	pb.UnimplementedMachineServiceServer

	cloud    *cloud
	instance string   // random for each process
	tokens   []string // that the cloud takes; every one when there are none
	slots    chan struct{}
	working  sync.WaitGroup
	stopped  <-chan struct{}
}

// What has an OperationMeta changes something.
type mutation interface {
	proto.Message
	GetMeta() *pb.OperationMeta
}

// unary runs before and after every call with one answer.
func (p *provider) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	began := time.Now()
	answer, err := p.serve(ctx, request, handle)
	logged(info.FullMethod, request, began, err)
	return answer, err
}

func (p *provider) serve(ctx context.Context, request any, handle grpc.UnaryHandler) (any, error) {
	message, isMessage := request.(proto.Message)
	if !isMessage {
		return handle(ctx, request)
	}
	if err := p.check(message); err != nil {
		return nil, err
	}
	change, isMutation := message.(mutation)
	if !isMutation {
		return guarded(func() (any, error) { return handle(ctx, request) })
	}
	select {
	case p.slots <- struct{}{}:
	default:
		return nil, refuse(pb.ErrorReason_ERROR_REASON_TOO_MANY_IN_FLIGHT, "%d changes are being made", maxMutations)
	}
	// The work goes on to its end when the caller goes away, in a task of its own.
	type outcome struct {
		answer any
		err    error
	}
	ended := make(chan outcome, 1)
	p.working.Add(1)
	go func() {
		defer p.working.Done()
		defer func() { <-p.slots }()
		answer, err := guarded(func() (any, error) {
			owner := ownerOf(message)
			if err := p.cloud.fence(owner.GetManagementClusterId(), change.GetMeta().GetFencingEpoch()); err != nil {
				return nil, err
			}
			return handle(context.WithoutCancel(ctx), request)
		})
		ended <- outcome{answer, err}
	}()
	select {
	case outcome := <-ended:
		return outcome.answer, outcome.err
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// stream runs before and after every call with a stream of answers.
func (p *provider) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	began := time.Now()
	_, err := guarded(func() (any, error) { return nil, handle(server, stream) })
	logged(info.FullMethod, nil, began, err)
	return err
}

// guarded turns a panic into an error, of which nobody can tell what it left behind.
func guarded(act func() (any, error)) (answer any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			slog.Error("a call panicked", "cause", fmt.Sprintf("%T", cause))
			bug := refuse(pb.ErrorReason_ERROR_REASON_PROVIDER_BUG, "the provider failed at this request; see its log")
			bug.effect = pb.Effect_EFFECT_UNKNOWN
			err = bug
		}
	}()
	return act()
}

// logged writes a line for a call. Never a message: there are secrets in most.
func logged(method string, request any, began time.Time, err error) {
	attributes := []any{"method", method, "code", status.Code(err).String(), "took", time.Since(began).String()}
	if change, isMutation := request.(mutation); isMutation {
		attributes = append(attributes, "key", cut(change.GetMeta().GetIdempotencyKey(), 64))
	}
	var refused *failure
	if errors.As(err, &refused) {
		attributes = append(attributes, "reason", refused.reason.String())
	}
	slog.Info("call", attributes...)
}

// ownerOf is whose the target of a request is.
func ownerOf(request proto.Message) *pb.Ownership {
	switch r := request.(type) {
	case interface{ GetOwnership() *pb.Ownership }:
		return r.GetOwnership()
	case interface{ GetRef() *pb.ResourceRef }:
		return r.GetRef().GetOwnership()
	case interface{ GetCluster() *pb.ResourceRef }:
		return r.GetCluster().GetOwnership()
	}
	return nil
}

var validKey = regexp.MustCompile(`\A[A-Za-z0-9._-]{1,64}\z`)

// check refuses what breaks a rule of the protocol; which rules there are is told by the fields
// that a request has. Whatever comes after may take the request for well-formed.
func (p *provider) check(request proto.Message) error {
	if found := tooLarge(request); found != nil {
		return refuseFor(pb.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED, found)
	}
	var found []problem
	must := func(holds bool, at, words string) {
		if !holds {
			found = append(found, problem{at, words})
		}
	}
	const missing = "is required and missing"
	owned := func(at string, owner *pb.Ownership) {
		must(owner.GetManagementClusterId() != "", at+".management_cluster_id", missing)
		must(owner.GetClusterUid() != "", at+".cluster_uid", missing)
		must(owner.GetObjectUid() != "", at+".object_uid", missing)
	}
	change, isMutation := request.(mutation)
	if isMutation {
		must(validKey.MatchString(change.GetMeta().GetIdempotencyKey()), "meta.idempotency_key", "must be 1 to 64 of [A-Za-z0-9._-]")
		must(change.GetMeta().GetGeneration() >= 0, "meta.generation", "must not be below zero")
		must(change.GetMeta().GetFencingEpoch() >= 0, "meta.fencing_epoch", "must not be below zero")
	}
	ids := map[string]string{}
	referred := func(at string, ref *pb.ResourceRef) {
		owned(at+".ownership", ref.GetOwnership())
		must(validKey.MatchString(ref.GetIdempotencyKey()), at+".idempotency_key", "must be 1 to 64 of [A-Za-z0-9._-]")
		if isMutation {
			same := ref.GetIdempotencyKey() == change.GetMeta().GetIdempotencyKey()
			must(same, at+".idempotency_key", "must be that of meta")
		}
		ids[at+".provider_id"] = ref.GetProviderId()
	}
	switch r := request.(type) {
	case interface{ GetOwnership() *pb.Ownership }:
		owned("ownership", r.GetOwnership())
	case interface{ GetRef() *pb.ResourceRef }:
		referred("ref", r.GetRef())
	case interface{ GetCluster() *pb.ResourceRef }:
		referred("cluster", r.GetCluster())
	case interface{ GetManagementClusterId() string }:
		must(r.GetManagementClusterId() != "", "management_cluster_id", missing)
	}
	if r, ok := request.(interface{ GetMembers() []*pb.EndpointMember }); ok {
		for number, member := range r.GetMembers() {
			at := fmt.Sprintf("members[%d]", number)
			must(validKey.MatchString(member.GetIdempotencyKey()), at+".idempotency_key", "must be 1 to 64 of [A-Za-z0-9._-]")
			ids[at+".provider_id"] = member.GetProviderId()
		}
	}
	var digest []byte
	switch r := request.(type) {
	case interface{ GetSpec() *pb.MachineSpec }:
		digest = r.GetSpec().GetDigest()
		must(len(digest) == sha256.Size, "spec.digest", "must have 32 bytes")
	case interface{ GetSpec() *pb.ClusterSpec }:
		digest = r.GetSpec().GetDigest()
		must(len(digest) == sha256.Size, "spec.digest", "must have 32 bytes")
	}
	if r, ok := request.(interface{ GetPage() *pb.PageRequest }); ok {
		must(r.GetPage().GetPageSize() >= 0, "page.page_size", "must not be below zero")
	}
	if r, ok := request.(interface{ GetBootstrap() *pb.BootstrapData }); ok && r.GetBootstrap() != nil {
		boot := r.GetBootstrap()
		if len(boot.Data) > maxBootstrap {
			return refuse(pb.ErrorReason_ERROR_REASON_BOOTSTRAP_TOO_LARGE,
				"the bootstrap data has %d bytes; the harbour takes at most %d", len(boot.Data), maxBootstrap)
		}
		sum := sha256.Sum256(boot.Data)
		must(bytes.Equal(sum[:], boot.Sha256), "bootstrap.sha256", "must be the SHA-256 of the data")
		known := boot.Format == 0 || slices.Contains(bootstrapFormats, boot.Format)
		must(known, "bootstrap.format", "must be one of GetInfo's bootstrap_formats")
	}
	if found != nil {
		return refuseFor(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, found)
	}
	for at, id := range ids {
		if id != "" && (!strings.HasPrefix(id, idPrefix) || len(id) > maxProviderID) {
			return refuseFor(pb.ErrorReason_ERROR_REASON_MALFORMED_PROVIDER_ID, []problem{{at, "is none of this provider's"}})
		}
	}
	_, judged := request.(*pb.ValidateConfigRequest) // which may need no credentials
	if r, ok := request.(interface{ GetCredentials() *pb.Credentials }); ok && !judged {
		return p.authenticate(r.GetCredentials())
	}
	return nil
}

// tooLarge finds what is larger than the protocol allows.
func tooLarge(request proto.Message) (found []problem) {
	_ = protorange.Range(request.ProtoReflect(), func(values protopath.Values) error {
		last := values.Index(-1)
		size, most := 0, maxString
		switch value := last.Value.Interface().(type) {
		case string:
			size = len(value)
		case []byte:
			size, most = len(value), maxMessage
		case protoreflect.Message:
			// The status of a cluster comes from here, and has longer texts in it.
			if value.Descriptor().Name() == "ClusterStatus" {
				return protorange.Break
			}
		}
		if last.Step.Kind() == protopath.FieldAccessStep {
			switch last.Step.FieldDescriptor().Name() {
			case "provider_id": // judged by itself
				most = size
			case "provider_state":
				most = maxState
			case "json":
				most = maxConfig
			}
		}
		if size > most {
			_, at, _ := strings.Cut(values.Path.String(), ").")
			found = append(found, problem{cut(at, maxString), fmt.Sprintf("has %d bytes; at most %d are allowed", size, most)})
		}
		return nil
	})
	return found
}

// authenticate is the cloud's own look at the credentials.
func (p *provider) authenticate(credentials *pb.Credentials) error {
	given := credentials.GetData().GetEntries()["token"]
	for _, token := range p.tokens {
		if subtle.ConstantTimeCompare([]byte(token), given) == 1 {
			return nil
		}
	}
	if p.tokens == nil {
		return nil
	}
	return refuse(pb.ErrorReason_ERROR_REASON_CREDENTIALS_INVALID, "the harbour does not know the token of the credentials")
}

// checkConfig refuses a config that is none of this kind, before anybody reads it.
func (k kind) checkConfig(config *pb.OpaqueConfig) error {
	if config.GetKind() != k.name {
		return refuseFor(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, []problem{{"config.kind", "must be " + k.name}})
	}
	if config.SchemaVersion != "v1" {
		return refuseFor(pb.ErrorReason_ERROR_REASON_UNSUPPORTED_SCHEMA_VERSION, []problem{{"config.schema_version", "must be v1"}})
	}
	if sum := sha256.Sum256(config.Json); !bytes.Equal(sum[:], config.Sha256) {
		return refuseFor(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, []problem{{"config.sha256", "must be the SHA-256 of the JSON"}})
	}
	return nil
}

// accept reads a config that something shall be made of, or changed to.
func (k kind) accept(config *pb.OpaqueConfig) (map[string]any, error) {
	if err := k.checkConfig(config); err != nil {
		return nil, err
	}
	values, found := k.read(config.Json)
	if found != nil {
		return nil, refuseFor(pb.ErrorReason_ERROR_REASON_INVALID_CONFIG, found)
	}
	if image := k.text(values, "image"); image != "" && !slices.Contains(images, image) {
		return nil, refuse(pb.ErrorReason_ERROR_REASON_DEPENDENCY_NOT_FOUND, "there is no image %q", cut(image, maxString))
	}
	return values, nil
}

// meet compares a request with what its key stands for: the owner, the id, the generation.
func meet(r resource, owner *pb.Ownership, id string, generation int64) error {
	if r.Owner.Cluster != owner.ClusterUid || r.Owner.Object != owner.ObjectUid || (id != "" && id != r.ID) {
		return refuse(pb.ErrorReason_ERROR_REASON_OWNERSHIP_MISMATCH, "the key, the owner and the provider_id do not belong together")
	}
	if generation < r.Seen {
		return refuse(pb.ErrorReason_ERROR_REASON_STALE_GENERATION, "generation %d was seen; read the object again", r.Seen)
	}
	return nil
}

// --- Discovery and identity ---

func (p *provider) GetProtocols(context.Context, *discovery.GetProtocolsRequest) (*discovery.GetProtocolsResponse, error) {
	return &discovery.GetProtocolsResponse{
		Name: name, Version: version, InstanceId: p.instance,
		Protocols: []*discovery.Protocol{{Package: "actuator.v1", Stability: discovery.Stability_STABILITY_STABLE}},
	}, nil
}

var bootstrapFormats = []pb.BootstrapFormat{
	pb.BootstrapFormat_BOOTSTRAP_FORMAT_CLOUD_CONFIG, pb.BootstrapFormat_BOOTSTRAP_FORMAT_IGNITION,
}

func (p *provider) GetInfo(context.Context, *pb.GetInfoRequest) (*pb.GetInfoResponse, error) {
	info := &pb.GetInfoResponse{
		Name: name, VendorVersion: version, InstanceId: p.instance,
		Capabilities: &pb.Capabilities{
			ListMachines:    &pb.ListMachinesCapability{},
			ListClusters:    &pb.ListClustersCapability{},
			WatchMachines:   &pb.WatchMachinesCapability{ResumeWindow: durationpb.New(time.Hour)},
			EndpointMembers: &pb.EndpointMembersCapability{MaxMembers: 16},
			ConsoleOutput:   &pb.ConsoleOutputCapability{},
			MachineTypes:    &pb.MachineTypesCapability{Prices: true},
		},
		Limits:           &pb.Limits{MaxConcurrentMutations: maxMutations, MaxBootstrapBytes: maxBootstrap, MaxPageSize: maxPage},
		Timings:          &pb.Timings{PollInterval: durationpb.New(pollInterval)},
		ProviderIdPrefix: idPrefix,
		BootstrapFormats: bootstrapFormats,
		CredentialKeys: []*pb.CredentialKey{{
			Name: "token", Optional: p.tokens == nil, Description: "A token of the harbour; its master has some.",
		}},
	}
	for _, kind := range kinds {
		info.ConfigKinds = append(info.ConfigKinds, &pb.ConfigKind{Kind: kind.name, Target: kind.target, SchemaVersions: []string{"v1"}})
	}
	return info, nil
}

func (p *provider) Probe(context.Context, *pb.ProbeRequest) (*pb.ProbeResponse, error) {
	return &pb.ProbeResponse{Readiness: pb.Readiness_READINESS_READY}, nil
}

func kindNamed(name string) (kind, error) {
	for _, kind := range kinds {
		if kind.name == name {
			return kind, nil
		}
	}
	return kind{}, refuseFor(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, []problem{{"kind", "must be one of GetInfo's config_kinds"}})
}

func (p *provider) GetConfigSchema(_ context.Context, request *pb.GetConfigSchemaRequest) (*pb.GetConfigSchemaResponse, error) {
	kind, err := kindNamed(request.Kind)
	if err != nil {
		return nil, err
	}
	if request.SchemaVersion != "v1" {
		return nil, refuseFor(pb.ErrorReason_ERROR_REASON_UNSUPPORTED_SCHEMA_VERSION, []problem{{"schema_version", "must be v1"}})
	}
	made := schema(kind.fields)
	made["$schema"], made["title"] = "https://json-schema.org/draft/2020-12/schema", kind.name
	text, err := json.Marshal(made)
	sum := sha256.Sum256(text)
	return &pb.GetConfigSchemaResponse{JsonSchema: text, Sha256: sum[:]}, err
}

func (p *provider) ValidateConfig(_ context.Context, request *pb.ValidateConfigRequest) (*pb.ValidateConfigResponse, error) {
	kind, err := kindNamed(request.Config.GetKind())
	if err != nil {
		return nil, err
	}
	if err := kind.checkConfig(request.Config); err != nil {
		return nil, err
	}
	answer := &pb.ValidateConfigResponse{}
	tell := func(severity pb.Severity, replaces bool, found []problem) {
		for _, problem := range found[:min(len(found), 100-len(answer.Diagnostics))] {
			answer.Diagnostics = append(answer.Diagnostics, &pb.Diagnostic{
				Severity: severity, JsonPointer: problem.at, Message: problem.words, RequiresReplacement: replaces,
			})
		}
	}
	values, found := kind.read(request.Config.Json)
	tell(pb.Severity_SEVERITY_ERROR, false, found)
	if request.Mode == pb.ValidationMode_VALIDATION_MODE_PREFLIGHT {
		if err := p.authenticate(request.Credentials); err != nil {
			return nil, err
		}
		if image := kind.text(values, "image"); image != "" && !slices.Contains(images, image) {
			tell(pb.Severity_SEVERITY_ERROR, false, []problem{{"/image", "is not there"}})
		}
	}
	if before, wrong := kind.read(request.Previous.GetJson()); request.Previous != nil && found == nil && wrong == nil {
		tell(pb.Severity_SEVERITY_WARNING, true, replacements(kind.fields, before, values, ""))
	}
	return answer, nil
}

// --- Clusters ---

func (p *provider) CreateCluster(_ context.Context, request *pb.CreateClusterRequest) (*pb.CreateClusterResponse, error) {
	r, err := p.create(true, request.Meta, request.Ownership, request.Spec.Digest, func(r *resource) error {
		values, err := clusterKind.accept(request.Spec.Config)
		if err != nil {
			return err
		}
		port, err := strconv.ParseInt(clusterKind.text(values, "port"), 10, 32)
		r.Name, r.Config, r.Host, r.Port = request.Spec.Name, request.Spec.Config.Json, randomID()+".harbour.test", int32(port)
		if given := request.Spec.ControlPlaneEndpoint; given != nil {
			r.Host, r.Port = given.Host, given.Port
		}
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return &pb.CreateClusterResponse{Status: clusterStatus(r)}, nil
}

func (p *provider) UpdateCluster(_ context.Context, request *pb.UpdateClusterRequest) (*pb.UpdateClusterResponse, error) {
	r, err := p.update(true, request.Meta, request.Ref, request.Spec.Digest, clusterKind, request.Spec.Config)
	if err != nil {
		return nil, err
	}
	return &pb.UpdateClusterResponse{Status: clusterStatus(r)}, nil
}

func (p *provider) DeleteCluster(_ context.Context, request *pb.DeleteClusterRequest) (*pb.DeleteClusterResponse, error) {
	empty := func() error {
		owner := request.Ref.Ownership
		inside := p.cloud.list(false, owner.ManagementClusterId, func(r resource) bool {
			return r.Owner.Cluster == owner.ClusterUid && r.ID != "" && !r.isGone(time.Now())
		})
		if len(inside) > 0 {
			return refuse(pb.ErrorReason_ERROR_REASON_DEPENDENTS_EXIST, "%s and %d more machines are in it", inside[0].ID, len(inside)-1)
		}
		return nil
	}
	r, err := p.remove(true, request.Meta, request.Ref, empty)
	if err != nil {
		return nil, err
	}
	if r.isGone(time.Now()) {
		return &pb.DeleteClusterResponse{State: pb.DeletionState_DELETION_STATE_GONE}, nil
	}
	return &pb.DeleteClusterResponse{
		State: pb.DeletionState_DELETION_STATE_IN_PROGRESS, Message: "the network is being removed",
		PollAfter: durationpb.New(pollInterval), Remaining: r.artefacts(),
	}, nil
}

func (p *provider) ClusterExists(_ context.Context, request *pb.ClusterExistsRequest) (*pb.ClusterExistsResponse, error) {
	r, presence, err := p.exists(true, request.Ref)
	if err != nil || presence == pb.Presence_PRESENCE_ABSENT {
		return &pb.ClusterExistsResponse{Presence: presence}, err
	}
	return &pb.ClusterExistsResponse{Presence: presence, Status: clusterStatus(r)}, nil
}

func (p *provider) ListClusters(_ context.Context, request *pb.ListClustersRequest) (*pb.ListClustersResponse, error) {
	now := time.Now()
	all := p.cloud.list(true, request.ManagementClusterId, func(r resource) bool { return r.ID != "" && !r.isGone(now) })
	found, next, err := page(all, func(r resource) string { return r.Key }, request.Page)
	if err != nil {
		return nil, err
	}
	answer := &pb.ListClustersResponse{NextPageToken: next}
	for _, r := range found {
		answer.Clusters = append(answer.Clusters, &pb.ListedCluster{Ownership: r.ownership(), IdempotencyKey: r.Key, Status: clusterStatus(r)})
	}
	return answer, nil
}

func (p *provider) SetEndpointMembers(_ context.Context, request *pb.SetEndpointMembersRequest) (*pb.SetEndpointMembersResponse, error) {
	at := placeOf(true, request.Cluster.Ownership, request.Cluster.IdempotencyKey)
	defer p.cloud.lock(at)()
	r, known := p.cloud.find(at)
	if !known || r.leaves() {
		return nil, refuse(pb.ErrorReason_ERROR_REASON_RESOURCE_NOT_FOUND, "there is no such cluster")
	}
	if err := meet(r, request.Cluster.Ownership, request.Cluster.ProviderId, request.Meta.Generation); err != nil {
		return nil, err
	}
	now := time.Now()
	answer := &pb.SetEndpointMembersResponse{Endpoint: r.endpoint()}
	r.Members = nil
	for _, member := range request.Members {
		told := &pb.EndpointMemberStatus{ProviderId: member.ProviderId, State: pb.EndpointMemberState_ENDPOINT_MEMBER_STATE_HEALTHY}
		machine, known := p.cloud.find(placeOf(false, request.Cluster.Ownership, member.IdempotencyKey))
		switch {
		case !known || machine.leaves() || machine.ID != member.ProviderId:
			told.State, told.Message = pb.EndpointMemberState_ENDPOINT_MEMBER_STATE_UNHEALTHY, "there is no such machine"
		case member.Draining:
			told.State = pb.EndpointMemberState_ENDPOINT_MEMBER_STATE_DRAINING
		case !machine.isReady(now):
			told.State = pb.EndpointMemberState_ENDPOINT_MEMBER_STATE_REGISTERING
			answer.PollAfter = durationpb.New(pollInterval)
		}
		answer.Members = append(answer.Members, told)
		r.Members = append(r.Members, member.ProviderId)
	}
	r.Seen, r.Epoch = request.Meta.Generation, request.Meta.FencingEpoch
	return answer, p.cloud.write(r, nil)
}

// --- Machines ---

func (p *provider) CreateMachine(_ context.Context, request *pb.CreateMachineRequest) (*pb.CreateMachineResponse, error) {
	// Decided when nothing else is written: the cluster may be deleted at this moment.
	inCluster := func() error {
		clusters := p.cloud.list(true, request.Ownership.ManagementClusterId, func(r resource) bool {
			return r.Owner.Cluster == request.Ownership.ClusterUid && r.isReady(time.Now()) && !r.leaves()
		})
		if len(clusters) == 0 {
			return refuse(pb.ErrorReason_ERROR_REASON_CLUSTER_NOT_READY, "the machine's cluster is not ready")
		}
		return nil
	}
	r, err := p.create(false, request.Meta, request.Ownership, request.Spec.Digest, func(r *resource) error {
		values, err := machineKind.accept(request.Spec.Config)
		if err != nil {
			return err
		}
		// The bootstrap data goes to the machine and nowhere else; the harbour's machines run nothing.
		r.Name, r.Config, r.Size = request.Spec.Name, request.Spec.Config.Json, machineKind.text(values, "size")
		r.Zone = cmp.Or(request.Spec.FailureDomain, zones[int(r.Created.UnixNano())%len(zones)])
		if !slices.Contains(zones, r.Zone) {
			return refuseFor(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, []problem{{"spec.failure_domain", "is none of the cluster's"}})
		}
		r.Address = fmt.Sprintf("10.0.%d.%d", r.Created.Nanosecond()/1000%256, r.Created.Nanosecond()/256_000%256)
		return nil
	}, inCluster)
	if err != nil {
		return nil, err
	}
	return &pb.CreateMachineResponse{Status: machineStatus(r)}, nil
}

func (p *provider) UpdateMachine(_ context.Context, request *pb.UpdateMachineRequest) (*pb.UpdateMachineResponse, error) {
	r, err := p.update(false, request.Meta, request.Ref, request.Spec.Digest, machineKind, request.Spec.Config)
	if err != nil {
		return nil, err
	}
	return &pb.UpdateMachineResponse{Status: machineStatus(r)}, nil
}

func (p *provider) DeleteMachine(_ context.Context, request *pb.DeleteMachineRequest) (*pb.DeleteMachineResponse, error) {
	r, err := p.remove(false, request.Meta, request.Ref, nil)
	if err != nil {
		return nil, err
	}
	if r.isGone(time.Now()) {
		return &pb.DeleteMachineResponse{State: pb.DeletionState_DELETION_STATE_GONE}, nil
	}
	return &pb.DeleteMachineResponse{
		State: pb.DeletionState_DELETION_STATE_IN_PROGRESS, Message: "the machine is being taken apart",
		PollAfter: durationpb.New(pollInterval), Remaining: r.artefacts(),
	}, nil
}

func (p *provider) MachineExists(_ context.Context, request *pb.MachineExistsRequest) (*pb.MachineExistsResponse, error) {
	r, presence, err := p.exists(false, request.Ref)
	if err != nil || presence == pb.Presence_PRESENCE_ABSENT {
		return &pb.MachineExistsResponse{Presence: presence}, err
	}
	return &pb.MachineExistsResponse{Presence: presence, Status: machineStatus(r)}, nil
}

func (p *provider) ListMachines(_ context.Context, request *pb.ListMachinesRequest) (*pb.ListMachinesResponse, error) {
	now := time.Now()
	all := p.cloud.list(false, request.ManagementClusterId, func(r resource) bool {
		return r.ID != "" && !r.isGone(now) && (request.ClusterUid == "" || r.Owner.Cluster == request.ClusterUid)
	})
	found, next, err := page(all, func(r resource) string { return r.Key }, request.Page)
	if err != nil {
		return nil, err
	}
	answer := &pb.ListMachinesResponse{NextPageToken: next}
	for _, r := range found {
		answer.Machines = append(answer.Machines, listed(r))
	}
	return answer, nil
}

// WatchMachines sends what has changed since the last time that it looked: at first everything,
// or what the resume token leaves.
func (p *provider) WatchMachines(request *pb.WatchMachinesRequest, stream grpc.ServerStreamingServer[pb.WatchMachinesResponse]) error {
	if err := p.check(request); err != nil {
		return err
	}
	var from uint64
	if request.ResumeToken != "" {
		instance, revision, _ := strings.Cut(request.ResumeToken, ".")
		parsed, err := strconv.ParseUint(revision, 10, 64)
		if err != nil || instance != p.instance {
			return refuse(pb.ErrorReason_ERROR_REASON_RESUME_TOKEN_EXPIRED, "the resume token is of another process; watch anew")
		}
		from = parsed
	}
	// A machine that was gone when the watch began is no news to it.
	whole, synced := from == 0, false
	bookmark := time.NewTicker(bookmarks)
	defer bookmark.Stop()
	for {
		found, upTo, changed := p.cloud.since(request.ManagementClusterId, from)
		for _, r := range found {
			event := &pb.WatchMachinesResponse{Event: &pb.WatchMachinesResponse_Present{Present: listed(r)}}
			if r.isGone(time.Now()) {
				if whole && !synced {
					continue
				}
				event.Event = &pb.WatchMachinesResponse_Gone{Gone: &pb.GoneMachine{
					Ownership: r.ownership(), IdempotencyKey: r.Key, ProviderId: r.ID,
				}}
			}
			if err := stream.Send(event); err != nil {
				return err
			}
			from = r.revision
		}
		from = max(from, upTo)
		token := fmt.Sprintf("%s.%d", p.instance, from)
		if !synced {
			synced = true
			event := &pb.WatchMachinesResponse_Synced{Synced: &pb.WatchSynced{ResumeToken: token}}
			if err := stream.Send(&pb.WatchMachinesResponse{Event: event}); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-p.stopped:
			return status.Error(codes.Unavailable, "the provider stops")
		case <-changed:
		case <-bookmark.C:
			event := &pb.WatchMachinesResponse_Bookmark{Bookmark: &pb.WatchBookmark{ResumeToken: token}}
			if err := stream.Send(&pb.WatchMachinesResponse{Event: event}); err != nil {
				return err
			}
		}
	}
}

func (p *provider) GetConsoleOutput(request *pb.GetConsoleOutputRequest, stream grpc.ServerStreamingServer[pb.GetConsoleOutputResponse]) error {
	if err := p.check(request); err != nil {
		return err
	}
	r, presence, err := p.exists(false, request.Ref)
	if err != nil {
		return err
	}
	if presence == pb.Presence_PRESENCE_ABSENT {
		return refuse(pb.ErrorReason_ERROR_REASON_RESOURCE_NOT_FOUND, "there is no such machine")
	}
	console := fmt.Sprintf("%s at %s: booting\n", r.Name, r.Zone)
	if r.isReady(time.Now()) {
		console += r.Name + " login: "
	}
	if tail := request.TailBytes; tail > 0 && tail < int64(len(console)) {
		console = console[int64(len(console))-tail:]
	}
	for chunk := range slices.Chunk([]byte(console), maxChunk) {
		if err := stream.Send(&pb.GetConsoleOutputResponse{Chunk: chunk}); err != nil {
			return err
		}
	}
	return nil
}

func (p *provider) ListMachineTypes(_ context.Context, request *pb.ListMachineTypesRequest) (*pb.ListMachineTypesResponse, error) {
	wanted := slices.DeleteFunc(slices.Clone(sizes), func(size *pb.MachineType) bool { return request.Name != "" && size.Name != request.Name })
	found, next, err := page(wanted, (*pb.MachineType).GetName, request.Page)
	return &pb.ListMachineTypesResponse{MachineTypes: found, NextPageToken: next}, err
}

// --- What machines and clusters have in common ---

func placeOf(cluster bool, owner *pb.Ownership, key string) place {
	return place{cluster, owner.ManagementClusterId, key}
}

// create makes what `fill` describes, or returns what the key stands for already.
func (p *provider) create(cluster bool, meta *pb.OperationMeta, owned *pb.Ownership, digest []byte, fill func(*resource) error, allowed func() error) (resource, error) {
	at := placeOf(cluster, owned, meta.IdempotencyKey)
	defer p.cloud.lock(at)()
	if r, known := p.cloud.find(at); known {
		if err := meet(r, owned, "", meta.Generation); err != nil {
			return r, err
		}
		if r.leaves() {
			return r, refuse(pb.ErrorReason_ERROR_REASON_STALE_GENERATION, "the key was deleted, so nothing is made; read the object again")
		}
		if !bytes.Equal(r.Digest, digest) {
			return r, refuse(pb.ErrorReason_ERROR_REASON_KEY_CONFLICT, "%s was made with this key from another spec", r.ID)
		}
		return r, nil
	}
	now := time.Now()
	r := resource{
		Cluster: cluster, Key: meta.IdempotencyKey, ID: idPrefix + randomID(), Digest: digest,
		Generation: meta.Generation, Seen: meta.Generation, Epoch: meta.FencingEpoch,
		Created: now, Ready: now.Add(p.cloud.boot),
		Owner: owner{
			Management: owned.ManagementClusterId, Cluster: owned.ClusterUid, Object: owned.ObjectUid,
			Namespace: owned.Namespace, InCluster: owned.ClusterName, Name: owned.ObjectName,
		},
	}
	if err := fill(&r); err != nil {
		return r, err
	}
	return r, p.cloud.write(r, allowed)
}

// update changes what can be changed in place.
func (p *provider) update(cluster bool, meta *pb.OperationMeta, ref *pb.ResourceRef, digest []byte, kind kind, config *pb.OpaqueConfig) (resource, error) {
	at := placeOf(cluster, ref.Ownership, ref.IdempotencyKey)
	defer p.cloud.lock(at)()
	r, known := p.cloud.find(at)
	if !known || r.leaves() {
		return r, refuse(pb.ErrorReason_ERROR_REASON_RESOURCE_NOT_FOUND, "there is nothing with this key")
	}
	if err := meet(r, ref.Ownership, ref.ProviderId, meta.Generation); err != nil {
		return r, err
	}
	values, err := kind.accept(config)
	if err != nil {
		return r, err
	}
	before, _ := kind.read(r.Config)
	if found := replacements(kind.fields, before, values, ""); found != nil {
		return r, refuseFor(pb.ErrorReason_ERROR_REASON_REPLACE_REQUIRED, found)
	}
	r.Config, r.Digest = config.Json, digest
	r.Generation, r.Seen, r.Epoch = meta.Generation, meta.Generation, meta.FencingEpoch
	return r, p.cloud.write(r, nil)
}

// remove deletes what the key stands for, and writes down that it was deleted even if there is nothing.
func (p *provider) remove(cluster bool, meta *pb.OperationMeta, ref *pb.ResourceRef, allowed func() error) (resource, error) {
	at := placeOf(cluster, ref.Ownership, ref.IdempotencyKey)
	defer p.cloud.lock(at)()
	r, known := p.cloud.find(at)
	if !known {
		owned := ref.Ownership
		r = resource{
			Cluster: cluster, Key: ref.IdempotencyKey, GoneAt: time.Now(),
			Owner: owner{Management: owned.ManagementClusterId, Cluster: owned.ClusterUid, Object: owned.ObjectUid},
		}
	} else {
		if err := meet(r, ref.Ownership, ref.ProviderId, meta.Generation); err != nil || r.leaves() {
			return r, err
		}
		r.GoneAt = time.Now().Add(p.cloud.leave)
	}
	r.Seen, r.Epoch = meta.Generation, meta.FencingEpoch
	return r, p.cloud.write(r, allowed)
}

func (p *provider) exists(cluster bool, ref *pb.ResourceRef) (resource, pb.Presence, error) {
	r, known := p.cloud.find(placeOf(cluster, ref.Ownership, ref.IdempotencyKey))
	if !known || r.isGone(time.Now()) {
		return r, pb.Presence_PRESENCE_ABSENT, nil
	}
	if err := meet(r, ref.Ownership, ref.ProviderId, r.Seen); err != nil {
		return r, pb.Presence_PRESENCE_UNSPECIFIED, err
	}
	if r.leaves() {
		return r, pb.Presence_PRESENCE_TERMINATING, nil
	}
	return r, pb.Presence_PRESENCE_PRESENT, nil
}

func (r resource) ownership() *pb.Ownership {
	return &pb.Ownership{
		ManagementClusterId: r.Owner.Management, ClusterUid: r.Owner.Cluster, ObjectUid: r.Owner.Object,
		Namespace: r.Owner.Namespace, ClusterName: r.Owner.InCluster, ObjectName: r.Owner.Name,
	}
}

func (r resource) endpoint() *pb.Endpoint { return &pb.Endpoint{Host: r.Host, Port: r.Port} }

func listed(r resource) *pb.ListedMachine {
	return &pb.ListedMachine{
		Ownership: r.ownership(), IdempotencyKey: r.Key, CreatedAt: timestamppb.New(r.Created), Status: machineStatus(r),
	}
}

func machineStatus(r resource) *pb.MachineStatus {
	made := &pb.MachineStatus{
		ProviderId: r.ID, Phase: pb.MachinePhase_MACHINE_PHASE_PROVISIONING, FailureDomain: r.Zone, MachineType: r.Size,
		ObservedGeneration: r.Generation, ObservedDigest: r.Digest, Artefacts: r.artefacts(),
		Addresses: []*pb.MachineAddress{
			{Type: pb.MachineAddressType_MACHINE_ADDRESS_TYPE_HOSTNAME, Address: r.Name},
			{Type: pb.MachineAddressType_MACHINE_ADDRESS_TYPE_INTERNAL_IP, Address: r.Address},
		},
	}
	switch {
	case r.leaves():
		made.Phase = pb.MachinePhase_MACHINE_PHASE_DELETING
	case r.isReady(time.Now()):
		made.Phase = pb.MachinePhase_MACHINE_PHASE_RUNNING
	}
	return made
}

func clusterStatus(r resource) *pb.ClusterStatus {
	made := &pb.ClusterStatus{
		ProviderId: r.ID, Phase: pb.ClusterPhase_CLUSTER_PHASE_PROVISIONING, Endpoint: r.endpoint(),
		ObservedGeneration: r.Generation, ObservedDigest: r.Digest, Artefacts: r.artefacts(),
	}
	for _, zone := range zones {
		made.FailureDomains = append(made.FailureDomains, &pb.FailureDomain{Name: zone, ControlPlane: true})
	}
	switch {
	case r.leaves():
		made.Phase = pb.ClusterPhase_CLUSTER_PHASE_DELETING
	case r.isReady(time.Now()):
		made.Phase = pb.ClusterPhase_CLUSTER_PHASE_READY
	}
	return made
}

// page returns the items behind the token, as many as were asked for, and the token of the next page.
func page[T any](all []T, name func(T) string, request *pb.PageRequest) (items []T, next string, err error) {
	size := maxPage
	if asked := int(request.GetPageSize()); asked > 0 {
		size = min(asked, maxPage)
	}
	if token := request.GetPageToken(); token != "" {
		last, ours := strings.CutPrefix(token, "after:")
		if !ours {
			return nil, "", refuse(pb.ErrorReason_ERROR_REASON_PAGE_TOKEN_EXPIRED, "the page token is none of this provider's")
		}
		all = slices.DeleteFunc(slices.Clone(all), func(item T) bool { return name(item) <= last })
	}
	if len(all) <= size {
		return all, "", nil
	}
	return all[:size], "after:" + name(all[size-1]), nil
}
