package genesis

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// wire is the file's JSON, field by field in the order of the file.
type wire struct {
	Format        string       `json:"format"`
	Mesh          names.MeshID `json:"mesh"`
	Bounds        wireBounds   `json:"bounds"`
	Operators     Group        `json:"operators"`
	Committee     Group        `json:"committee"`
	Recovery      Group        `json:"recovery"`
	RecoveryDelay duration     `json:"recovery_delay"`
	Members       []Member     `json:"members"`
	Bundle        string       `json:"bundle"`
}

type wireBounds struct {
	Lease       duration `json:"lease"`
	PresentLife duration `json:"present_life"`
	ReleaseLife duration `json:"release_life"`
	Skew        duration `json:"skew"`
}

// duration is written as Go writes durations: "2s", "168h0m0s".
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %.40q: want one like 2s or 500ms", b)
	}
	*d = duration(v)
	return nil
}

func (w *wire) file() *File {
	return &File{
		Mesh: w.Mesh,
		Bounds: Bounds{
			Lease:       time.Duration(w.Bounds.Lease),
			PresentLife: time.Duration(w.Bounds.PresentLife),
			ReleaseLife: time.Duration(w.Bounds.ReleaseLife),
			Skew:        time.Duration(w.Bounds.Skew),
		},
		Operators: w.Operators, Committee: w.Committee, Recovery: w.Recovery,
		RecoveryDelay: time.Duration(w.RecoveryDelay),
		Members:       w.Members,
		Bundle:        w.Bundle,
	}
}

func (f *File) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(&wire{
		Format: Format,
		Mesh:   f.Mesh,
		Bounds: wireBounds{
			Lease:       duration(f.Bounds.Lease),
			PresentLife: duration(f.Bounds.PresentLife),
			ReleaseLife: duration(f.Bounds.ReleaseLife),
			Skew:        duration(f.Bounds.Skew),
		},
		Operators: f.Operators, Committee: f.Committee, Recovery: f.Recovery,
		RecoveryDelay: duration(f.RecoveryDelay),
		Members:       f.Members,
		Bundle:        f.Bundle,
	})
	return b.Bytes(), err
}

// explain says where and why b could not be decoded.
func explain(b []byte, d *json.Decoder, err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early; get the whole file again"
	case errors.As(err, &syntax):
		return fmt.Sprintf("line %d: not JSON: %v", line(b, syntax.Offset), syntax)
	case errors.As(err, &kind):
		return fmt.Sprintf("line %d: %s: want %s, not a JSON %s", line(b, kind.Offset), kind.Field, kind.Type, kind.Value)
	}
	return fmt.Sprintf("line %d or before: %s", line(b, d.InputOffset()), strings.TrimPrefix(err.Error(), "json: "))
}

func line(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(max(offset, 0), int64(len(b)))], []byte("\n"))
}

// firstDifference names the first line that is not as it would be written.
func firstDifference(got, want []byte) string {
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(g), len(w)) {
		if !bytes.Equal(g[i], w[i]) {
			return fmt.Sprintf("line %d: want %.80q, got %.80q; the file has exactly one form, do not edit it", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("it has %d lines, want %d; the file has exactly one form, do not edit it", len(g), len(w))
}
