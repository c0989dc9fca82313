package testnet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/identity"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// ProviderName is the identity provider of every test network. It believes whoever
// holds its key file, which a real one must not.
const ProviderName names.ProviderID = "test-provider"

// providerLevel is how strongly it says that persons are authenticated.
const providerLevel = 3

func (l *layout) providerFile() string { return filepath.Join(l.dir, "provider", "test-provider.key") }

func (l *layout) makeProvider() error {
	if err := os.MkdirAll(filepath.Dir(l.providerFile()), 0o700); err != nil {
		return err
	}
	_, err := certs.NewSigner(l.providerFile())
	return err
}

// enrolProvider has the operators say that the test provider is to be believed.
func (n *Network) enrolProvider(ctx context.Context, operators *registry.Author) error {
	signer, err := certs.LoadSigner(n.layout.providerFile())
	if err != nil {
		return err
	}
	p := &registrypb.IdentityProvider{
		Id: string(ProviderName), Name: "Test identity provider", PublicKeys: [][]byte{publicKey(signer)}, Levels: []uint32{1, 2, providerLevel},
	}
	if err := do(ctx, operators, &registrypb.Command{Body: &registrypb.Command_SetIdentityProvider{SetIdentityProvider: p}}); err != nil {
		return fmt.Errorf("identity provider: %w", err)
	}
	return nil
}

// Identify makes the token by which a person of the test network answers a node's
// challenge, with the provider's key in keyFile. adjust, which may be nil, changes it
// before it is signed: for tests of what must not be believed.
func Identify(keyFile string, c *reading.Challenge, who api.Subject, adjust func(*registrypb.IdentityToken)) ([]byte, error) {
	signer, err := certs.LoadSigner(keyFile)
	if err != nil {
		return nil, err
	}
	node, err := names.ParseNodeID(c.Node)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &registrypb.IdentityToken{
		Mesh: string(c.Mesh), Provider: string(ProviderName), Subject: &registrypb.Subject{Scheme: who.Scheme, Number: who.Number},
		Node: &registrypb.NodeRef{Institution: string(node.Institution), Node: string(node.Node)}, Nonce: c.Nonce,
		Purpose: string(c.Purpose), PayloadHash: c.PayloadHash, AuthLevel: providerLevel,
		IssuedUnixMs: now.UnixMilli(), ExpiresUnixMs: now.Add(2 * time.Minute).UnixMilli(),
	}
	if adjust != nil {
		adjust(t)
	}
	return identity.Issue(t, signer)
}

// Officer gives a client of an institution's node, authenticated as its security
// officer's application.
func (n *Network) Officer(id names.InstitutionID) *api.Client {
	s := n.site(id)
	c := api.NewClient("http://"+s.ports.API, s.guard)
	c.HTTP = n.http
	c.User = names.UserID("officer@" + string(id))
	return c
}
