package authority

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
)

const (
	tokenDir = "tokens"
	maxCSR   = 16 << 10
)

// ErrToken means that a join token is unknown, used or expired; which of them is
// not said.
var ErrToken = errors.New("join token is not valid; ask for a new one")

// ErrBadRequest means that a certificate request is not one for the token's identity.
var ErrBadRequest = errors.New("bad certificate request")

// token is what is kept of a join token: not the token, which its hash names.
type token struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
}

// Token makes a join token: whoever brings it within ttl (at most MaxLife) gets,
// once, an SVID for id and for nothing else. It is a secret; only its hash is
// kept. Tokens that have expired are cleared away.
func (a *Authority) Token(id spiffeid.ID, ttl time.Duration) (string, error) {
	s, err := a.load()
	if err != nil {
		return "", err
	}
	if ttl == 0 {
		ttl = time.Hour
	}
	if err := checkRequest(s.Mesh, id, ttl); err != nil {
		return "", err
	}
	if err := a.sweepTokens(); err != nil {
		return "", err
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	secret := base64.RawURLEncoding.EncodeToString(raw)
	b, err := json.Marshal(token{ID: id.String(), Expires: a.now().Add(ttl)})
	if err != nil {
		return "", err
	}
	if err := keyfile.Create(a.tokenPath(secret), b, keyfile.Secret); err != nil {
		return "", err
	}
	return secret, nil
}

// tokenPath gives the file of a token. Looking a hash up takes no time that
// depends on the secret.
func (a *Authority) tokenPath(secret string) string {
	h := sha256.Sum256([]byte("crossroads join token v1\x00" + secret))
	return filepath.Join(a.dir, tokenDir, hex.EncodeToString(h[:]))
}

// Join exchanges a join token and a certificate request (PKCS#10, DER) for an
// SVID of DefaultLife: the chain, leaf first. The request must be signed by its
// key and name exactly the SPIFFE ID of the token; what else it asks for is not
// looked at. The error wraps ErrToken, ErrBadRequest or ErrRefused. A bad request
// does not use up the token; of two who bring the same token one gets an SVID.
func (a *Authority) Join(secret string, csrDER []byte) ([]*x509.Certificate, error) {
	path := a.tokenPath(secret)
	t, err := a.readToken(path)
	if err != nil {
		return nil, err
	}
	id, err := spiffeid.FromString(t.ID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	csr, err := parseCSR(csrDER, id)
	if err != nil {
		return nil, err
	}
	// Whoever removes the file has used the token, for good before anything is signed.
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrToken
		}
		return nil, err
	}
	if err := keyfile.SyncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return a.certify(id, csr.PublicKey, DefaultLife)
}

func (a *Authority) readToken(path string) (*token, error) {
	b, err := keyfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrToken
	}
	if err != nil {
		return nil, err
	}
	t := new(token)
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !a.now().Before(t.Expires) {
		return nil, ErrToken
	}
	return t, nil
}

// sweepTokens removes what has expired; a file that somebody else removed
// meanwhile is no concern of ours.
func (a *Authority) sweepTokens() error {
	dir := a.path(tokenDir)
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		if _, err := a.readToken(path); !errors.Is(err, ErrToken) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// NewRequest makes a key and a certificate request (PKCS#10, DER) for id, as Join
// wants it. The key never leaves the node that made it.
func NewRequest(id spiffeid.ID) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, key)
	if err != nil {
		return nil, nil, err
	}
	return key, der, nil
}

func parseCSR(der []byte, id spiffeid.ID) (*x509.CertificateRequest, error) {
	if len(der) > maxCSR {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrBadRequest, len(der), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: not PKCS#10 in DER", ErrBadRequest)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: not signed by its own key", ErrBadRequest)
	}
	switch k := csr.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, fmt.Errorf("%w: key on curve %s, want P-256 or P-384", ErrBadRequest, k.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("%w: key is %T, want ECDSA or Ed25519", ErrBadRequest, k)
	}
	if len(csr.URIs) != 1 || csr.URIs[0].String() != id.String() {
		return nil, fmt.Errorf("%w: it must name exactly %s", ErrBadRequest, id)
	}
	return csr, nil
}
