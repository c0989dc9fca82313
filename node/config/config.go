// Package config is the configuration file of a node: one YAML file, read once at
// start. It is pure data: reading it opens no socket and starts nothing.
//
// The Config struct is the manual; Example gives the same as a commented file.
// Reading is strict. A key that is not known, a wrong type or a value without sense
// is a Problem that names file, line, column and remedy, and all of them are told at
// once. Relative paths are relative to the folder of the file that names them.
//
// Secrets are never in the file itself: it names the files that hold them, and of
// the applications' tokens it has only the hashes.
package config

import (
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Config is what one node must be told. Start from Default, or read one with Load.
// It is not changed after Validate, and so is safe for concurrent use.
type Config struct {
	// Mesh is the mesh that the node belongs to, and the SPIFFE trust domain.
	Mesh names.MeshID `yaml:"mesh"`
	// Genesis is the file that the mesh began with.
	Genesis Genesis `yaml:"genesis"`
	// Node says which node of which institution this is.
	Node Node `yaml:"node"`
	// Listen is the one UDP address that peers reach, host:port. Port 0: any free
	// port (tests).
	Listen string `yaml:"listen"`
	// Advertise is the address that peers are told, host:port, when it differs from
	// Listen: behind a port mapping, or when Listen is a wildcard. Empty: Listen.
	Advertise string `yaml:"advertise,omitempty"`
	// Data is where the node keeps what it must not lose.
	Data Data `yaml:"data"`
	// Identity is the node's X.509-SVID.
	Identity Identity `yaml:"identity"`
	// Signing is the institution's signing key.
	Signing Signing `yaml:"signing"`
	// Gossip is how the node learns who seems alive.
	Gossip Gossip `yaml:"gossip,omitempty"`
	// Member makes the node carry a replica of the whole registry. It votes when the
	// registry lists it as a voter, which this file cannot decide.
	Member bool `yaml:"member,omitempty"`
	// Join says that the mesh has begun: a member whose registry folder is empty waits for
	// the others and never founds the registry anew, although the genesis file names it.
	// Set it everywhere once the mesh runs, and before a disk is replaced.
	Join bool `yaml:"join,omitempty"`
	// API is the local HTTP interface for the institution's own applications.
	API API `yaml:"api"`
	// Sources are the datasets that this institution supplies. None: it only asks.
	Sources []Source `yaml:"sources,omitempty"`
	// Sector makes the node part of a secondary network. Nil: it is of none.
	Sector *Sector `yaml:"sector,omitempty"`
	// Log is what the node tells its operator.
	Log Log `yaml:"log,omitempty"`
	// Limits bound what others can make the node do.
	Limits Limits `yaml:"limits,omitempty"`
	// Outbox keeps answers until the application has them.
	Outbox Outbox `yaml:"outbox,omitempty"`
	// Notify says how long what was published is kept.
	Notify Notify `yaml:"notify,omitempty"`
	// Inbox says to which systems what arrives is sent.
	Inbox Inbox `yaml:"inbox,omitempty"`
	// Journal says how long entries are kept.
	Journal Journal `yaml:"journal,omitempty"`
	// Lots say how files of many subjects are worked on.
	Lots Lots `yaml:"lots,omitempty"`

	source source // where each key was read, for Validate
}

// Genesis pins the file that the mesh began with.
type Genesis struct {
	// File is its path.
	File string `yaml:"file"`
	// SHA256 is its hash, 64 hexadecimal digits, learnt from somebody you trust:
	// `crossroads genesis hash FILE` prints that of a file. The node refuses another.
	SHA256 string `yaml:"sha256"`
}

// Node names the node.
type Node struct {
	// Institution is the institution's ID in the registry.
	Institution names.InstitutionID `yaml:"institution"`
	// Name tells several nodes of one institution apart.
	Name names.NodeName `yaml:"name"`
}

// ID gives both parts as one.
func (n Node) ID() names.NodeID { return names.NodeID{Institution: n.Institution, Node: n.Name} }

// Data is the node's own storage.
type Data struct {
	// Dir holds registry state, journal and outbox. One node only; it is created
	// when it is not there.
	Dir string `yaml:"dir"`
	// KeyFile holds the key that everything in Dir is encrypted under (PEM, mode 0600);
	// it belongs in no backup of Dir. `crossroads certs keygen storage FILE` makes one.
	KeyFile string `yaml:"key_file"`
}

// Identity is a folder with svid.pem, key.pem and bundle.pem. It is watched: a new
// pair is taken up without a restart.
type Identity struct {
	Dir string `yaml:"dir"`
}

// Signing is the institution's Ed25519 key, PKCS#8 PEM, mode 0600.
type Signing struct {
	KeyFile string `yaml:"key_file"`
}

// Gossip is the membership protocol. It never gives a right; without it, peers are
// tried at the addresses that the registry lists.
type Gossip struct {
	// Enabled turns it on.
	Enabled bool `yaml:"enabled,omitempty"`
	// KeyFile holds this node's X25519 key (PKCS#8 PEM, mode 0600); its public part
	// stands in the registry. Required when Enabled.
	KeyFile string `yaml:"key_file,omitempty"`
}

// API is the local HTTP interface.
type API struct {
	// Listen is a TCP address, host:port. Port 0: any free port (tests).
	Listen string `yaml:"listen"`
	// TLSCert and TLSKey are PEM files; both or neither. They are required unless
	// Listen is a loopback address or Plaintext is set: tokens travel here.
	TLSCert string `yaml:"tls_cert,omitempty"`
	TLSKey  string `yaml:"tls_key,omitempty"`
	// Plaintext allows HTTP without TLS on an address that is not loopback, for a
	// node behind a proxy that ends TLS on the same private network.
	Plaintext bool `yaml:"plaintext,omitempty"`
	// Applications may use the interface; whoever has no token reads only the public
	// tables.
	Applications []Application `yaml:"applications,omitempty"`
}

// Application is one system of the institution's.
type Application struct {
	// Name stands in the journal; lower case letters, digits and dashes.
	Name string `yaml:"name"`
	// TokenSHA256 is the SHA-256 of the application's bearer token, 64 hexadecimal
	// digits. `crossroads certs keygen token` makes both. Tokens must be random and
	// long: the hash is not salted.
	TokenSHA256 string `yaml:"token_sha256"`
	// UsersAsserted says that the application tells which of its human users asks, in
	// the header X-Crossroads-User, and answers for it. Otherwise the application
	// itself is the user.
	UsersAsserted bool `yaml:"users_asserted,omitempty"`
	// AuthLevel is the highest level of authentication that the application may
	// assert of a user, 0 to 4; the level when it asserts none.
	AuthLevel uint32 `yaml:"auth_level,omitempty"`
	// Purposes are those it may ask for. Empty: any the network authorizes.
	Purposes []names.Purpose `yaml:"purposes,omitempty"`
	// Datasets are those it may ask for. Empty: any the network authorizes.
	Datasets []names.DatasetID `yaml:"datasets,omitempty"`
	// Officer says that it is the security officer's: it may search what the
	// institution's own users did at this node, and report unusual use.
	Officer bool `yaml:"officer,omitempty"`
	// Oversees are the users that the officer may look at, each by name or, ending in
	// *, by how it begins. Empty: all of the institution's.
	Oversees []string `yaml:"oversees,omitempty"`
	// Inbox says that it takes what arrives: every item of its purposes and datasets
	// waits until this application has acknowledged it.
	Inbox bool `yaml:"inbox,omitempty"`
	// Operator lets it see how the whole mesh does, take snapshots of the registry, which
	// are as secret as the person directory, and hand the registry's lead over. It gives no
	// right in the mesh: that takes the operators' signatures.
	Operator bool `yaml:"operator,omitempty"`
	// Admin lets it submit registry commands, declare references and read the whole
	// journal of this node. Every other application sees its own tickets only.
	Admin bool `yaml:"admin,omitempty"`
}

// Sector is a secondary network behind a managing body. What the registry says of the
// two institutions decides; this only says which part the node takes.
type Sector struct {
	// ManagingBody is set at a cooperating institution: the managing body of its sector,
	// which alone may call this node for it, and through which this node asks.
	ManagingBody names.InstitutionID `yaml:"managing_body,omitempty"`
	// Datasets are set at the managing body: those that it finds within its sector, and
	// not in a system of its own. None: it only asks for its sector.
	Datasets []names.DatasetID `yaml:"datasets,omitempty"`
	// Prompt is how long after a presentation every answer leaves that is ready by then,
	// less a fifth: choose it longer than the slowest institution behind takes.
	Prompt time.Duration `yaml:"prompt,omitempty"`
	// Late is when all other answers leave, and every failure whatever its cause. The same
	// as Prompt: everything leaves then, and no time tells how slow an institution is.
	Late time.Duration `yaml:"late,omitempty"`
}

// Log is structured, on standard error. It never holds a subject's number.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level,omitempty"`
	// Format is text or json.
	Format string `yaml:"format,omitempty"`
}

// Limits bound what others can make the node do. Beyond one, the other side is told
// to come back later.
type Limits struct {
	// APIBody is the largest request body at the API, in bytes. Registry commands have
	// their own limit.
	APIBody int64 `yaml:"api_body,omitempty"`
	// APIConcurrent is how many requests one application may have under way.
	APIConcurrent int `yaml:"api_concurrent,omitempty"`
	// PeerStreams is how many requests one peer may have under way.
	PeerStreams int `yaml:"peer_streams,omitempty"`
	// PeerPerSecond and PeerBurst are how many requests one peer may make.
	PeerPerSecond float64 `yaml:"peer_per_second,omitempty"`
	PeerBurst     int     `yaml:"peer_burst,omitempty"`
	// Message is the largest message between peers, in bytes.
	Message int `yaml:"message,omitempty"`
	// Drain is how long exchanges under way may take to end when the node stops.
	Drain time.Duration `yaml:"drain,omitempty"`
	// ExamineEvery is how often one of the clearances answered lately is handed to a
	// registry member that decides it again. 0: never.
	ExamineEvery time.Duration `yaml:"examine_every,omitempty"`
}

// Outbox keeps answers, encrypted, so that asking again is asking once.
type Outbox struct {
	// Life is how long an answer is kept that nobody acknowledges.
	Life time.Duration `yaml:"life,omitempty"`
}

// Notify keeps changes that were published, encrypted.
type Notify struct {
	// Keep is how long a change waits for recipients that are down, and can be replayed.
	Keep time.Duration `yaml:"keep,omitempty"`
}

// Journal is the node's own log segment.
type Journal struct {
	// Retention is how many whole months entries are kept after their own month has
	// ended; then the month is erased, for good. Proofs over all else stay.
	Retention int `yaml:"retention,omitempty"`
}

// Default gives a configuration with every optional setting at its default and
// nothing else.
func Default() *Config {
	return &Config{
		API: API{Listen: "127.0.0.1:7480"},
		Log: Log{Level: "info", Format: "text"},
		Limits: Limits{
			APIBody: 64 << 10, APIConcurrent: 64,
			PeerStreams: 512, PeerPerSecond: 5000, PeerBurst: 5000,
			Message: 8 << 20, Drain: 10 * time.Second, ExamineEvery: 10 * time.Second,
		},
		Outbox:  Outbox{Life: time.Hour},
		Notify:  Notify{Keep: 7 * 24 * time.Hour},
		Journal: Journal{Retention: 120},
		Lots:    Lots{MaxLines: 5_000_000, MaxOpen: 64, ChunkLines: 2048, AtOnce: 3, Keep: 30 * 24 * time.Hour},
	}
}
