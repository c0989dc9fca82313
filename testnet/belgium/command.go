package belgium

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// RowsPerCommand is how many references one signature covers.
const RowsPerCommand = record.MaxRows

// firstDay and days bound when references begin: 1955 to 2025.
const (
	firstDay = -5_479
	days     = 25_500
)

// Key gives an institution's signing key, the same every time: whoever runs this knows
// them all.
func Key(id names.InstitutionID) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("belgium " + string(id)))
	return ed25519.NewKeyFromSeed(seed[:])
}

// Commands gives how many commands an institution sends.
func (i *Institution) Commands() int { return (i.count + RowsPerCommand - 1) / RowsPerCommand }

// Rows gives the references of an institution's nth command, from 0, in order of number.
func (c *Country) Rows(i *Institution, n int) []record.Declaration {
	first := n * RowsPerCommand
	rows := make([]record.Declaration, min(RowsPerCommand, i.count-first))
	for j := range rows {
		rows[j] = c.reference(i, first+j)
	}
	return rows
}

func (c *Country) reference(i *Institution, n int) record.Declaration {
	person := i.Person(n)
	dice := mix(i.seed + mix(uint64(person)))
	from := names.Date(firstDay + int(dice%days))
	until := names.Forever
	if dice>>32%10 < 3 {
		until = from + names.Date(1+dice>>40%9_000)
	}
	return record.Declaration{
		Subject: c.Number(person), Quality: i.Qualities[dice>>56%uint64(len(i.Qualities))],
		Period: names.Period{From: from, Until: until},
	}
}

// Command gives an institution's nth command, from 0, signed, to follow on the one whose
// payload has the hash previous, and the hash of its own payload. It is the same bytes
// every time, so that who was interrupted sends the same again.
func (c *Country) Command(mesh names.MeshID, i *Institution, n int, previous []byte) (raw, hash []byte, err error) {
	packed, err := record.PackReferences(c.Rows(i, n))
	if err != nil {
		return nil, nil, err
	}
	nonce := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("nonce "+string(i.ID)), uint64(n)))
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(&registrypb.Command{
		Mesh: string(mesh), Author: string(i.ID), Chain: registrypb.Chain_DIRECTORY, Sequence: uint64(n) + 1, Previous: previous,
		TimeUnixMs: 1_700_000_000_000, Nonce: nonce[:],
		Body: &registrypb.Command_DeclarePacked{DeclarePacked: packed},
	})
	if err != nil {
		return nil, nil, err
	}
	raw, err = sign(payload, i.ID)
	sum := sha256.Sum256(payload)
	return raw, sum[:], err
}

func sign(payload []byte, by names.InstitutionID) ([]byte, error) {
	return envelope.Sign(envelope.Command, payload, Key(by))
}
