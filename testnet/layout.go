package testnet

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// MeshName is the mesh of every test network.
const MeshName names.MeshID = "demo.crossroads.test"

// layout is a network on disk:
//
//	network.json            what it was made from
//	authority/              the certificate authority
//	genesis/                genesis.json and the keys of operators, committee, recovery
//	provider/               the key of the test identity provider
//	systems/<institution>/  the institution's own databases
//	nodes/<institution>/    node.yaml, keys, svid/, data/, node.log
//
// Only what is under nodes/ would be on the machine of that institution.
type layout struct {
	dir       string
	world     *data.World
	authority *authority.Authority
	genesis   *genesis.File
	sites     []*site
	fresh     bool   // nothing has been enrolled yet
	claims    claims // of the ports, when they were chosen now
}

// site is one institution's part of the layout.
type site struct {
	data.Institution
	member bool
	dir    string
	ports  ports
	token  string
	guard  string // the security officer's token
	signer crypto.Signer
	box    *certs.BoxKey
}

// network is network.json: enough to bring the same network up again.
type network struct {
	Nodes    int                            `json:"nodes"`
	Also     []names.InstitutionID          `json:"also,omitempty"`
	Members  int                            `json:"members"`
	Promoted []names.InstitutionID          `json:"promoted,omitempty"` // members since Promote
	Persons  int                            `json:"persons"`
	Careers  bool                           `json:"careers,omitempty"`
	Seed     uint64                         `json:"seed"`
	Enrolled bool                           `json:"enrolled"`
	Ports    map[names.InstitutionID]ports  `json:"ports"`
	Tokens   map[names.InstitutionID]string `json:"tokens"`
	Officers map[names.InstitutionID]string `json:"officers"`
}

const (
	nodeName        = names.NodeName("n1")
	applicationName = "desk"
	officerName     = "security"
)

func (s *site) id() names.NodeID   { return names.NodeID{Institution: s.ID, Node: nodeName} }
func (s *site) configFile() string { return filepath.Join(s.dir, "node.yaml") }
func (s *site) svidDir() string    { return filepath.Join(s.dir, "svid") }

func (s *site) role() string {
	if s.member {
		return "member"
	}
	return "node"
}

// openLayout makes the network's folder, or opens one that an earlier run kept.
func openLayout(o Options) (*layout, error) {
	world, err := data.New(o.world(), o.Also...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	l := &layout{dir: o.Dir, world: world}
	kept, err := readNetwork(l.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return l, l.make(o)
	case err != nil:
		return nil, err
	case kept.Nodes != o.Nodes || kept.Members != o.Members || kept.Persons != o.Persons || kept.Seed != o.Seed || kept.Careers != o.Careers || !slices.Equal(kept.Also, o.Also):
		return nil, fmt.Errorf("%w: %s keeps a network of --nodes %d --also %q --members %d --persons %d --seed %d; ask for the same, or name another --dir",
			ErrOptions, l.dir, kept.Nodes, kept.Also, kept.Members, kept.Persons, kept.Seed)
	}
	return l, l.reopen(kept)
}

func readNetwork(dir string) (*network, error) {
	b, err := os.ReadFile(filepath.Join(dir, "network.json"))
	if err != nil {
		return nil, err
	}
	n := new(network)
	if err := json.Unmarshal(b, n); err != nil {
		return nil, fmt.Errorf("%s/network.json: %w", dir, err)
	}
	return n, nil
}

func (l *layout) writeNetwork(o Options, enrolled bool) error {
	n := network{
		Nodes: o.Nodes, Also: o.Also, Members: o.Members, Persons: o.Persons, Careers: o.Careers, Seed: o.Seed, Enrolled: enrolled,
		Ports: make(map[names.InstitutionID]ports), Tokens: make(map[names.InstitutionID]string),
		Officers: make(map[names.InstitutionID]string),
	}
	for i, s := range l.sites {
		n.Ports[s.ID], n.Tokens[s.ID], n.Officers[s.ID] = s.ports, s.token, s.guard
		if s.member && i >= o.Members {
			n.Promoted = append(n.Promoted, s.ID)
		}
	}
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, "network.json"), b, 0o600)
}

func (l *layout) make(o Options) (err error) {
	if entries, err := os.ReadDir(l.dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%w: %s holds something that is no test network; name an empty or a new folder", ErrOptions, l.dir)
	}
	l.fresh = true
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	if l.authority, err = authority.New(filepath.Join(l.dir, "authority"), MeshName); err != nil {
		return err
	}
	for i, inst := range l.world.Institutions() {
		l.sites = append(l.sites, &site{
			Institution: inst, member: i < o.Members, dir: filepath.Join(l.dir, "nodes", string(inst.ID)),
			token: newToken(), guard: newToken(),
		})
	}
	if l.claims, err = choosePorts(l.sites); err != nil {
		return err
	}
	if err := l.eachSite((*site).makeKeys); err != nil {
		return err
	}
	if err := l.makeGenesis(); err != nil {
		return err
	}
	if err := l.makeProvider(); err != nil {
		return err
	}
	return l.writeNetwork(o, false)
}

func (l *layout) reopen(kept *network) (err error) {
	l.fresh = !kept.Enrolled
	if l.authority, err = authority.Open(filepath.Join(l.dir, "authority")); err != nil {
		return err
	}
	for i, inst := range l.world.Institutions() {
		l.sites = append(l.sites, &site{
			Institution: inst, member: i < kept.Members || slices.Contains(kept.Promoted, inst.ID), dir: filepath.Join(l.dir, "nodes", string(inst.ID)),
			ports: kept.Ports[inst.ID], token: kept.Tokens[inst.ID], guard: kept.Officers[inst.ID],
		})
	}
	if err := l.eachSite((*site).loadKeys); err != nil {
		return err
	}
	b, err := os.ReadFile(l.genesisFile())
	if err != nil {
		return err
	}
	l.genesis, err = genesis.Parse(b)
	return err
}

func (l *layout) genesisFile() string {
	return filepath.Join(l.dir, "genesis", genesis.FileName)
}

func (l *layout) makeGenesis() error {
	bundle, err := l.authority.Bundle()
	if err != nil {
		return err
	}
	pem, err := bundle.Marshal()
	if err != nil {
		return err
	}
	spec := genesis.Spec{Mesh: MeshName, Bundle: pem, FeatureLevel: record.Level}
	for _, s := range l.sites {
		if s.member {
			spec.Members = append(spec.Members, s.genesisMember())
		}
	}
	dir := filepath.Dir(l.genesisFile())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	l.genesis, err = genesis.Create(spec, dir)
	return err
}

func (s *site) genesisMember() genesis.Member {
	m := genesis.Member{
		Institution: s.ID, Node: nodeName, Name: s.Name, Type: s.Type, Sector: s.Sector, ManagingBody: s.ManagingBody,
		Address: s.ports.Mesh, PublicKey: publicKey(s.signer), GossipKey: s.box.Public(),
	}
	for _, scheme := range s.NumberSchemes {
		m.NumberSchemes = append(m.NumberSchemes, string(scheme))
	}
	return m
}

func (s *site) makeKeys() (err error) {
	if err := os.MkdirAll(s.svidDir(), 0o700); err != nil {
		return err
	}
	if s.signer, err = certs.NewSigner(filepath.Join(s.dir, "signing.key")); err != nil {
		return err
	}
	if s.box, err = certs.NewBoxKey(filepath.Join(s.dir, "gossip.key")); err != nil {
		return err
	}
	_, err = certs.NewStorageKey(filepath.Join(s.dir, "storage.key"))
	return err
}

func (s *site) loadKeys() (err error) {
	if s.signer, err = certs.LoadSigner(filepath.Join(s.dir, "signing.key")); err != nil {
		return err
	}
	s.box, err = certs.LoadBoxKey(filepath.Join(s.dir, "gossip.key"))
	return err
}

// writeConfig writes the node's configuration file, the one that an operator of a
// node in production would write by hand.
func (l *layout) writeConfig(s *site, sources []config.Source, adjust func(names.InstitutionID, *config.Config)) error {
	c := config.Default()
	c.Mesh = MeshName
	c.Genesis = config.Genesis{File: l.genesisFile(), SHA256: l.genesis.Hash()}
	c.Node = config.Node{Institution: s.ID, Name: nodeName}
	c.Listen = s.ports.Mesh
	c.Data = config.Data{Dir: filepath.Join(s.dir, "data"), KeyFile: filepath.Join(s.dir, "storage.key")}
	c.Identity = config.Identity{Dir: s.svidDir()}
	c.Signing = config.Signing{KeyFile: filepath.Join(s.dir, "signing.key")}
	c.Gossip = config.Gossip{Enabled: true, KeyFile: filepath.Join(s.dir, "gossip.key")}
	c.Member = s.member
	hash, guard := sha256.Sum256([]byte(s.token)), sha256.Sum256([]byte(s.guard))
	c.API = config.API{Listen: s.ports.API, Applications: []config.Application{{
		Name: applicationName, TokenSHA256: hex.EncodeToString(hash[:]), UsersAsserted: true, AuthLevel: 4, Admin: true, Operator: true, Inbox: true,
	}, {
		Name: officerName, TokenSHA256: hex.EncodeToString(guard[:]), UsersAsserted: true, AuthLevel: 4, Officer: true,
	}}}
	c.Sources, c.Sector = sources, l.sector(s)
	// Of an institution behind a managing body nobody need see whether it is up.
	c.Gossip.Enabled = !s.Cooperating()
	c.Log.Level = "warn"
	if adjust != nil {
		adjust(s.ID, c)
	}
	b, err := c.YAML()
	if err != nil {
		return err
	}
	return os.WriteFile(s.configFile(), b, 0o600)
}

func (l *layout) eachSite(fn func(*site) error) error {
	var g errgroup.Group
	for _, s := range l.sites {
		g.Go(func() error { return fn(s) })
	}
	return g.Wait()
}

func newToken() string {
	var b [24]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}
