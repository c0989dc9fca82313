package keyfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestCreateAndReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := Create(path, []byte("one"), Secret); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("two"), Secret); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created over an old one: %v", err)
	}
	if b, err := ReadSecret(path, 0o077); err != nil || string(b) != "one" {
		t.Errorf("%q, %v", b, err)
	}
	if err := Replace(path, []byte("two"), Public); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(path); err != nil || string(b) != "two" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := ReadSecret(path, 0o077); !errors.Is(err, ErrExposed) {
		t.Errorf("a secret for all: %v", err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

// TestModeIsExact does not let the umask decide who reads what.
func TestModeIsExact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, mode := range []fs.FileMode{Secret, Public} {
		if err := Replace(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%v, want %v (%v)", info.Mode(), mode, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, MaxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{big, dir, filepath.Join(dir, "none")} {
		if b, err := Read(path); err == nil {
			t.Errorf("%s: %d bytes", path, len(b))
		}
	}
}

func TestWriteIntoNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "f")
	if err := Create(path, nil, Secret); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
