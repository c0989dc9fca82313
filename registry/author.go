package registry

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// ErrOutrun means that others kept writing the same chain, faster than this author.
var ErrOutrun = errors.New("the author's chain kept moving")

// authorTries bounds how often a command is numbered anew.
const authorTries = 32

// Submitter takes an author's commands; a Registry is one.
type Submitter interface {
	Submit(ctx context.Context, envelope []byte) (*registrypb.SubmitResponse, error)
	// Head gives the end of a chain, as of index at the earliest.
	Head(ctx context.Context, author string, chain registrypb.Chain, index uint64) (sequence uint64, hash []byte, err error)
}

var _ Submitter = (*Registry)(nil)

// Head gives the end of a chain in this replica's view, once that holds index.
func (r *Registry) Head(ctx context.Context, author string, chain registrypb.Chain, index uint64) (sequence uint64, hash []byte, err error) {
	if err := r.store.WaitApplied(ctx, index); err != nil {
		return 0, nil, err
	}
	err = r.store.View(func(v record.View) error {
		sequence, hash, err = v.Head(author, chain)
		return err
	})
	return sequence, hash, err
}

// Author numbers, chains and signs the commands of one author, one at a time. It is
// safe for concurrent use, and several Authors may write for the same author.
type Author struct {
	to      Submitter
	mesh    names.MeshID
	author  string
	signers []crypto.Signer

	mu sync.Mutex // held through Do
}

// NewAuthor makes an author: an institution's id with its signer, or one of the
// threshold groups of package record with enough of its signers.
func NewAuthor(to Submitter, mesh names.MeshID, author string, signers ...crypto.Signer) *Author {
	return &Author{to: to, mesh: mesh, author: author, signers: signers}
}

// Do has cmd decided: it sets mesh, author, sequence, previous and, if there are
// none, the time and the nonce of a copy, signs that and submits it; cmd needs its
// chain and body.
// If somebody else wrote the chain meanwhile it does so again. A refusal is an
// answer, not an error.
//
// When ctx ends it is unknown whether the command was decided. Doing it again then
// is a new command; those of the registry say how things are from now on, so that
// a second one changes nothing more.
func (a *Author) Do(ctx context.Context, cmd *registrypb.Command) (*registrypb.SubmitResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	cmd = proto.Clone(cmd).(*registrypb.Command)
	cmd.Mesh, cmd.Author = string(a.mesh), a.author
	if cmd.TimeUnixMs == 0 {
		cmd.TimeUnixMs = time.Now().UnixMilli()
	}
	if cmd.Chain == registrypb.Chain_DIRECTORY && cmd.Nonce == nil {
		cmd.Nonce = NewNonce()
	}
	sequence, hash, err := a.to.Head(ctx, a.author, cmd.Chain, 0)
	for range authorTries {
		if err != nil {
			return nil, fmt.Errorf("head of %s: %w", a.author, err)
		}
		cmd.Sequence, cmd.Previous = sequence+1, hash
		resp, err := a.submit(ctx, cmd)
		if err != nil || resp.Accepted {
			return resp, err
		}
		// Refused. If that is because the chain moved, its head shows it now.
		var nowSequence uint64
		var nowHash []byte
		nowSequence, nowHash, err = a.to.Head(ctx, a.author, cmd.Chain, resp.Index)
		if err != nil {
			return nil, fmt.Errorf("head of %s: %w", a.author, err)
		}
		if nowSequence == sequence && bytes.Equal(nowHash, hash) {
			return resp, nil
		}
		sequence, hash = nowSequence, nowHash
	}
	return nil, fmt.Errorf("%w: %s, chain %s, after %d attempts", ErrOutrun, a.author, cmd.Chain, authorTries)
}

// NewNonce gives the random bytes that a directory command needs: its hash goes to
// whoever makes the next one, and must not tell whom it is about.
func NewNonce() []byte {
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce) // never fails
	return nonce
}

func (a *Author) submit(ctx context.Context, cmd *registrypb.Command) (*registrypb.SubmitResponse, error) {
	payload, err := proto.Marshal(cmd)
	if err != nil {
		return nil, err
	}
	raw, err := envelope.Sign(envelope.Command, payload, a.signers...)
	if err != nil {
		return nil, fmt.Errorf("sign as %s: %w", a.author, err)
	}
	return a.to.Submit(ctx, raw)
}
